"""Tokens for the junk filter: the same words however they were disguised, bounded whatever is sent, never an exception."""

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.message.reading import MOST_TEXT, domain_of, host_of, read
from services.message.tokens import MOST_TOKENS, is_cjk, parted, tokens

HEAD = b"From: Anna <anna@family.example>\r\nSubject: Hello\r\n"


def of(body: str, kind: str = "text/plain", charset: str = "utf-8") -> set[str]:
    head = f"Content-Type: {kind}; charset={charset}\r\n\r\n".encode()
    return set(tokens(read(HEAD + head + body.encode(charset, "xmlcharrefreplace"))))


@pytest.mark.parametrize(
    ("body", "token"),
    [
        ("cheap Meds today", "meds"),
        ("cheap Meds today", "cheap meds"),
        ("ｃｈｅａｐ ｍｅｄｓ", "cheap meds"),
        ("che\u200bap me\u2060ds", "cheap meds"),
        ("сheаp meds", "cheap meds"),  # Cyrillic с and а
        ("𝐜𝐡𝐞𝐚𝐩 meds", "cheap meds"),
        ("v.i.a.g.r.a now", "parted:viagra"),
        ("代开发票", "开发"),
        ("代 开 发 票", "发票"),
        ("代*开*发~票", "开发"),
        ("發票", "發票"),
        ("order 20260417 shipped", "#00000000"),
        ("call 13800138000", "13800138000"),
        ("visit https://www.shop.example.com.cn/deal/1", "ud:example.com.cn"),
        ("x" * 50, "long:xx5"),
        ("buy now!!!", "!!!"),
    ],
)
def test_what_recurs_in_other_mail_is_a_token(body: str, token: str) -> None:
    assert token in of(body)


@pytest.mark.parametrize("charset", ["utf-8", "gb2312", "gbk", "gb18030", "big5", "utf-16"])
def test_chinese_gives_the_same_pairs_in_any_charset(charset: str) -> None:
    assert {"中文", "文"} & of("中文", charset=charset) == {"中文"}


def test_undeclared_gbk_is_read_as_chinese_and_latin_1_is_not() -> None:
    raw = b"From: \xd5\xc5\xc8\xfd <a@b.example>\r\nSubject: " + "代开发票请联系".encode("gbk") + b"\r\n\r\n"
    reading = read(raw + "您好，我公司可代开发票".encode("gbk"))
    assert reading.subject == "代开发票请联系"
    assert "代开" in tokens(reading)
    assert "café" in set(tokens(read(HEAD + b"\r\nun caf\xe9 cr\xe8me, d\xe9j\xe0 vu")))


def test_html_is_read_as_it_is_seen() -> None:
    page = (
        "<style>p{color:red}</style><p>via<b></b>gra<!-- x --> deal</p><div style='display:none'>innocent words</div>"
        "<span style=\"font-size:0px\">hidden</span><a href='http://203.0.113.9/x'>bank.example</a><img src='//i.example/a'>"
    )
    reading = read(HEAD + b"Content-Type: text/html\r\n\r\n" + page.encode())
    assert reading.text.split() == ["viagra", "deal", "bank.example"]
    assert reading.hidden == len("innocentwordshidden")
    assert [(link.target, link.shown) for link in reading.links] == [("http://203.0.113.9/x", "bank.example")]
    assert reading.pictures == ["//i.example/a"]


def test_base64_quoted_printable_and_encoded_words_are_undone() -> None:
    body = base64.encodebytes("免费领取彩金".encode())
    raw = (
        b"Subject: =?gb2312?B?" + base64.b64encode("免费".encode("gb2312")) + b"?=\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body
    )
    found = set(tokens(read(raw)))
    assert {"s:免费", "领取", "彩金"} <= found


def test_what_the_way_here_adds_is_no_token() -> None:
    message = HEAD + b"Date: x\r\n\r\nhello"
    before = (
        b"Return-Path: <x@y>\r\nDelivered-To: anna\r\nReceived: from a by b\r\nAuthentication-Results: c; spf=pass\r\n"
        b"X-Mailstead-Junk: yes score=7.5\r\nX-Original-To: b@c\r\nX-Spam-Flag: YES\r\n"
    )
    assert tokens(read(before + message)) == tokens(read(message))
    assert tokens(read(message.replace(b"\r\n", b"\n"))) == tokens(read(message))


def test_which_writing() -> None:
    assert is_cjk(read(HEAD + "\r\n今天下午开会，请带上report".encode()))
    assert is_cjk(read(HEAD + "\r\n您的订单 A-1234 https://shop.example.com/order/1234567 total 99.00 EUR".encode()))
    assert not is_cjk(read(HEAD + "\r\nmeeting with 王 today at noon".encode()))


def test_chinese_words_are_told_from_the_rest() -> None:
    reading = read(HEAD.replace(b"Hello", "你好 Anna".encode()) + "\r\n明天见 ok".encode())
    common, written = parted(tokens(reading))
    assert set(written) == {"s:你好", "明天", "天见"}
    assert "s:anna" in common


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("https://Shop.Example/x", "shop.example"),
        ("http://user:pass@evil.example:8080/x", "evil.example"),
        ("http://bank.example@evil.example", "evil.example"),
        ("mailto:a@b", ""),
        ("www.x.example/y", "www.x.example"),
        ("#top", ""),
        ("//cdn.example/i.gif", "cdn.example"),
    ],
)
def test_hosts(target: str, host: str) -> None:
    assert host_of(target) == host


def test_domains() -> None:
    assert domain_of("a.b.example.com.cn") == "example.com.cn"
    assert domain_of("mail.example.org") == "example.org"
    assert domain_of("x@mail.example.org") == "example.org"


MIB = 1 << 20


@pytest.mark.parametrize(
    "raw",
    [
        b"<" * MIB,
        b"Content-Type: text/html\r\n\r\n" + b"<a href=" * (MIB // 8),
        b"Content-Type: text/html\r\n\r\n" + b"<!--" * (MIB // 4),
        b"Content-Type: text/html\r\n\r\n" + b'<a href="' * (MIB // 9),
        b"Content-Type: text/html\r\n\r\n" + b"<style>" * (MIB // 7),
        b"Content-Type: text/html\r\n\r\n" + b"<div style='display:none'>" * (MIB // 26),
        b"Content-Type: text/html\r\n\r\n<a " + b"style" * (MIB // 5),
        b"Content-Type: text/html\r\n\r\n" + b"&amp" * (MIB // 4),
        b"Subject: " + b"=?utf-8?q?" * (MIB // 10) + b"\r\n\r\nx",
        b"Subject: " + b"a" * MIB + b"\r\n\r\nx",
        b"From: " + b"a <" * (MIB // 3) + b"\r\n\r\nx",
        b"From: " + b"(" * MIB + b"\r\n\r\nx",
        b"\r\n\r\n" + b"a.b-" * (MIB // 4),
        b"\r\n\r\n" + b"a " * (MIB // 2),
        b"\r\n\r\n" + b"http://" * (MIB // 7),
        b"\r\n\r\n" + "中".encode() * (MIB // 3),
        b"\r\n\r\n" + "中 ".encode() * (MIB // 4),
        b"\r\n\r\n" + "аa".encode() * (MIB // 3),
        b"\r\n\r\n" + bytes(range(128, 256)) * (MIB // 128),
        b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" * MIB,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 10_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5_000)),
        b"Content-Type: message/rfc822\r\n\r\n" * 30_000,
    ],
    ids=range(23),
)
def test_an_enemy_gets_bounded_work(raw: bytes) -> None:
    start = time.process_time()
    reading = read(raw)
    found = tokens(reading)
    assert len(found) <= MOST_TOKENS
    assert len(reading.text) <= 2 * MOST_TEXT
    # Ordinary mail takes 1 ms; what is quadratic takes minutes with these.
    assert time.process_time() - start < 2.0


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400), st.sampled_from([b"", HEAD, b"Content-Type: text/html\r\n\r\n<a href=", b"From: =?gbk?b?"])
)
def test_any_octets_are_read(raw: bytes, before: bytes) -> None:
    assert len(tokens(read(before + raw))) <= MOST_TOKENS


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    of(text)
    of(text, "text/html")
