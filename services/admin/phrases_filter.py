"""What smtp-in finds about a message, what an account's rules do with it, and mistakes in a filter script: as phrases.

Part of `phrases.PHRASES`, in a file of its own because of their number. Where one is a part of another, or begins with
a value, it stands after what is more exact.
"""

from __future__ import annotations

from services.admin.text import mark

FILTER_PHRASES = (
    # --- what the proofs of a sender come to (policy/authenticity.py)
    mark("SPF: the client may not send for {domain}, {excuse}"),
    # --- what smtp-in found (policy/, smtp_in/)
    mark("it has no date"),
    mark("the words are {share} % those of mail that was sorted as junk"),
    mark("this account has not dealt with the sender before, or nothing proves who it is"),
    mark("this account has read and kept mail of the sender"),
    mark("this account has read and kept mail of this list"),
    mark("this account has written to the sender"),
    mark("From names no address"),
    mark("a link hides where it leads behind a shortener"),
    mark("a link leads to a bare IP address"),
    mark("a link shows another address than the one it leads to"),
    mark("a program is attached"),
    mark("a web page is attached"),
    mark("answers go to a free mailbox at another provider"),
    mark("it claims to be an answer and names no message that it answers"),
    mark("it has a form to fill in"),
    mark("it has no Message-ID"),
    mark("it is a picture and hardly any words"),
    mark("it speaks of invoices for sale"),
    mark("it speaks of gambling"),
    mark("it speaks of medicine without a doctor"),
    mark("it speaks of a fortune from a stranger"),
    mark("it speaks of extortion"),
    mark("it speaks of easy money"),
    mark("it speaks of loans"),
    mark("it speaks of forged papers and goods"),
    mark("it speaks of addresses and tools for mass mail"),
    mark("it speaks of another way to get in touch"),
    mark("it speaks of a mailbox that is to be closed"),
    mark("it speaks of courses for managers"),
    mark("most of its text is hidden"),
    mark("plain English text was sent in base64"),
    mark("the sender's name shows another address"),
    mark("the subject ends in something far to the right"),
    mark("the subject has !! or $$"),
    mark("the subject is written in capitals"),
    mark("words are written with letters of another script that look alike"),
    mark("words have characters in them that are not seen"),
    mark("words are taken apart, with a sign between their letters"),
    mark("{scanner} found the virus {name}"),
    # --- what an account's own rules did (smtp_in/rules.py, answers.py)
    mark("by the rules"),
    # --- mistakes in a filter script (policy/sieve)
    mark("{command} needs tests in ( )"),
)
