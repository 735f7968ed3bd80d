"""Asks TLS clients for a certificate and takes whichever they show: who may do what is decided by its fingerprint.

Python's `ssl` can only ask for certificates that it then verifies against CAs (CERT_OPTIONAL), and breaks the handshake
off where that fails. That would shut out every mail server that shows a certificate of its own, and an owner's VPS has
no CA. OpenSSL has it: SSL_CTX_set_verify with a callback that accepts. The private key is proved in any case.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl

_VERIFY_PEER = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
# Kept for the life of the process: OpenSSL calls it.
_accept = _CALLBACK(lambda verified, store: 1)


def ask(context: ssl.SSLContext) -> None:
    """Let `context` ask for a certificate. Raises OSError where this Python's OpenSSL cannot be reached."""
    context.verify_mode = ssl.CERT_NONE
    # The very library that Python's module uses; where it is built in, the program itself.
    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        set_verify, get_verify = library.SSL_CTX_set_verify, library.SSL_CTX_get_verify_mode
    except AttributeError as error:
        raise OSError(f"this Python's OpenSSL cannot be asked for client certificates: {error}") from None
    set_verify.argtypes, set_verify.restype = [ctypes.c_void_p, ctypes.c_int, _CALLBACK], None
    get_verify.argtypes, get_verify.restype = [ctypes.c_void_p], ctypes.c_int
    # PySSLContext: the object's head, then `SSL_CTX *ctx` (CPython 3.6 to 3.14, Modules/_ssl.c).
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    set_verify(pointer, _VERIFY_PEER, _accept)
    if get_verify(pointer) != _VERIFY_PEER or context.verify_mode is not ssl.CERT_OPTIONAL:
        raise OSError("this Python's OpenSSL cannot be asked for client certificates")
