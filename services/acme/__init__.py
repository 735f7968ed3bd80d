"""The acme room: it alone sees where certificates come from, and publishes copies that the listeners may read.

Owns `certs_dir` (`<generation>/{fullchain,privkey}.pem`, `current`), and in `room_dir` the local CA of a self-signed
installation. Only this room mounts `/etc/letsencrypt`, as uid 0 without capabilities: certbot keeps it 0700 root. The
other rooms follow `current` by themselves (`runtime/tls.py`); admin asks `GET /v1/status`.

A certificate's way: `watch` sees that something changed (a few `stat`s, no parsing) → `task` starts a short process →
there `sources` takes the pair, `certificate` reads and checks it, `install` publishes it → `proof` connects to every
listener and compares the serial it is served. cryptography lives in that short process only: 10 MiB that an idle room
does not keep. It never answers strangers, and never touches the originals.
"""
