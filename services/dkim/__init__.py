"""The dkim room: the only one that holds DKIM private keys, and what it does with them is sign.

Owns `dkim_dir`: `<domain>/<selector>.pem`, mode 0600. Asked by smtp-out to sign (header block and body hash in,
DKIM-Signature out) and by admin to make keys and to show their DNS records. It sees no bodies, has no way to the
outside, never gives a private key away and never looks anything up.

`room` starts it, `service` answers, `keys` keeps the files, `records` writes the DNS side.
"""
