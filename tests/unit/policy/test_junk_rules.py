"""Signs of junk that need no training: each is found where it is, and ordinary mail has none."""

import time

import pytest

from services.message.reading import read
from services.policy.junk_phrases import KINDS
from services.policy.junk_rules import reasons

HEAD = "From: {sender}\r\nTo: anna@family.example\r\nDate: Sun, 1 Mar 2026 10:00:00 +0800\r\nMessage-ID: <1@x>\r\n"


def signs(
    text: str = "hello", *, sender: str = "Bob <bob@friend.example>", more: str = "", subject: str = "Hello",
    kind: str = "text/plain",
) -> dict[str, float]:  # fmt: skip
    head = HEAD.format(sender=sender) + f"Subject: {subject}\r\n{more}Content-Type: {kind}; charset=utf-8\r\n\r\n"
    found: dict[str, float] = {}
    for reason in reasons(read((head + text).encode())):
        found[reason.rule] = found.get(reason.rule, 0) + reason.weight
    return found


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("junk-name-address", {"sender": '"service@bank.example" <x@evil.example>'}),
        ("junk-reply-elsewhere", {"more": "Reply-To: someone@gmail.com\r\n"}),
        ("junk-shouting", {"subject": "THIS IS AN URGENT MATTER"}),
        ("junk-exclaiming", {"subject": "Buy it!!"}),
        ("junk-padded", {"subject": "hello          xqzt"}),
        ("junk-no-reply", {"subject": "Re: your mail"}),
        ("junk-lookalikes", {"text": "рaypal аccount sесurity dераrtment"}),
        ("junk-no-width", {"text": "v\u200bi\u200ba\u200bg\u200bra"}),
        ("junk-parted", {"text": "cheap w.a.t.c.h.e.s here"}),
        ("junk-parted", {"subject": "代*开*发*票*优*惠"}),
        ("junk-link-address", {"text": "see http://203.0.113.7/login"}),
        ("junk-shortener", {"text": "see https://bit.ly/3abc"}),
        (
            "junk-link-other",
            {"kind": "text/html", "text": '<a href="https://evil.example/x">www.bank.example/login</a>'},
        ),
        (
            "junk-picture",
            {"kind": "text/html", "text": '<a href="https://a.example"><img src="https://a.example/i"></a>'},
        ),
        ("junk-form", {"kind": "text/html", "text": "<p>log in</p><form action=x><input></form>"}),
        ("junk-hidden", {"kind": "text/html", "text": f"<p>hi</p><div style='display:none'>{'story ' * 200}</div>"}),
        ("junk-phrase", {"text": "我公司可代开各类发票，税点优惠，电话13800000000"}),
        ("junk-phrase", {"text": "Buy cheap Viagra online"}),
        ("junk-phrase", {"text": "real estate; he died without next of kin, leaving 12 million in our bank"}),
        ("junk-phrase", {"text": "无抵押信用贷款，当天放款"}),
        ("junk-phrase", {"text": "手机兼职，工资日结，加微信abcde123"}),
    ],
)
def test_a_sign_is_found(rule: str, message: dict[str, str]) -> None:
    assert rule in signs(**message)


@pytest.mark.parametrize(
    "message",
    [
        {"text": "您好，发票已寄出，请查收。加我微信方便联系，电话 13800138000"},
        {"text": "您的电子发票已开具，发票号码12345678，金额88.00元，请点击下载。", "subject": "电子发票"},
        {"text": "您申请的贷款正在审批，如需补充材料请联系客户经理"},
        {"text": "本周五公司组织安全培训，请各部门经理参加", "subject": "培训通知"},
        {"text": "Your code is 123456. Click the link to verify your account within 24 hours."},
        {"text": "Invoice attached. Payment by bank transfer within 14 days.", "subject": "Invoice 4711"},
        {"text": "the U.S.A. and R.S.V.P. by 2026-01-02, e.g. a-b-c; 收件人 张*三 13*******8"},
        {"text": "lunch at the casino hotel? I won a bottle of wine", "subject": "Friday!"},
        {"text": "the lottery of birth, by a beneficiary of it", "subject": "book club"},
        {"text": "I take a photo of my prescription and send it to you", "subject": "doctor"},
        {
            "kind": "text/html",
            "text": "<p>This week's news from the shop, with many words about many things that you may want</p>"
            '<a href="https://click.shop.example/t/1">shop.example</a>',
            "sender": "Shop <news@shop.example>",
        },
        {
            "text": "on",
            "more": "Reply-To: list@lists.example\r\nList-Id: <l.lists.example>\r\n",
            "sender": "a@b.example",
        },
        {"text": "می‌خواهم کتاب‌ها را بخوانم و نمی‌دانم"},  # Persian needs its zero width non-joiner
        {"text": "Привет, как дела? This is Russian and English"},
    ],
)
def test_ordinary_mail_has_no_sign(message: dict[str, str]) -> None:
    assert sum(signs(**message).values()) < 1


def test_no_single_sign_is_enough_and_what_is_missing_is_hardly_one() -> None:
    assert all(kind.points < 5 for kind in KINDS)
    bare = sum(reason.weight for reason in reasons(read(b"Subject: hi\r\n\r\nhello")))
    assert bare <= 1.5
    assert sum(signs("[list] talk about cheap viagra online", more="List-Id: <spam-l.example>\r\n").values()) < 2


def test_two_kinds_of_offers_are_enough() -> None:
    assert sum(signs("无抵押贷款，当天放款；代开发票，加微信 abc12345").values()) >= 5


def test_programs() -> None:
    def attached(name: str) -> dict[str, float]:
        raw = (
            HEAD.format(sender="a@b.example")
            + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nsee\r\n--b\r\n"
            + f'Content-Type: application/octet-stream; name="{name}"\r\n\r\nMZ\r\n--b--\r\n'
        )
        return {reason.rule: reason.weight for reason in reasons(read(raw.encode()))}

    assert attached("invoice.pdf.exe")["junk-program"] > attached("setup.exe")["junk-program"]
    assert "junk-program" not in attached("holiday.com.pdf")
    assert "junk-program" not in attached("notes.txt")


@pytest.mark.parametrize("word", [word for kind in KINDS for word, _ in kind.phrases])
def test_phrases_take_time_in_proportion(word: str) -> None:
    text = (word + " ") * (60_000 // (len(word) + 1))
    reading = read(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode())
    start = time.process_time()
    reasons(reading)
    assert time.process_time() - start < 1.0
