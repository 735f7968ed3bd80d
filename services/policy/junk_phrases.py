"""Phrases of junk in Chinese and English, by what is sold or wanted. Data, and the search through it.

Used by `junk_rules`. Each phrase has a word that must be in the text before its pattern is tried: looking for sixty
words costs 50 µs a message, sixty patterns cost fifty times that. A kind counts once however often it is met. Written
by hand from what such mail has said for twenty years; words that a shop's, a bank's or an office's mail also has
(发票, 贷款, account, invoice) count only beside one that makes them an offer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# Gaps are bounded, so that a search takes time in proportion to the text.
MOST_LOOKED_AT = 16_384


class Kind(NamedTuple):
    """What a phrase speaks of. `phrases`: (word that must be there, pattern or "" where the word is enough)."""

    points: float
    name: str
    phrases: tuple[tuple[str, str], ...]


KINDS: tuple[Kind, ...] = (
    Kind(4.0, "invoices for sale", (
        ("代开", r"代开.{0,12}[发發税][票漂飘]?"),
        ("代開", r"代開.{0,12}[发發稅]"),
        ("发票", r"(?:增值税|普通|正规|各类|各种|真实|真票).{0,8}发票.{0,30}(?:代开|代理|优惠|税点|点数|点位)"),
        ("发票", r"发票.{0,12}(?:税点|点数|点位)"),
        ("发票", r"(?:对外|可为|优惠|低税).{0,12}发票.{0,60}(?:联系|电话|手机|QQ|微信)"),
        ("发漂", ""),
    )),
    Kind(3.5, "gambling", (
        ("百家乐", ""),
        ("六合彩", ""),
        ("时时彩", ""),
        ("娱乐城", ""),
        ("娛樂城", ""),
        ("彩金", r"彩金.{0,10}[送领]|[送领].{0,10}彩金"),
        ("博彩", r"博彩.{0,30}(?:注册|开户|网站|平台|送)"),
        ("首存", r"首存.{0,6}送"),
        ("真人", r"真人.{0,6}(?:视讯|荷官|娱乐|发牌)"),
        ("casino", r"\b(?:online|bonus|free|welcome)\b.{0,40}\bcasino\b|\bcasino\b.{0,40}\b(?:bonus|free|jackpot)\b"),
        ("free spins", ""),
    )),
    Kind(3.5, "medicine without a doctor", (
        ("viagra", r"\b(?:buy|cheap|order|generic|\$|price|online|discount)\b.{0,60}viagra|viagra"
                   r".{0,60}(?:\$|\bcialis|price|online)"),
        ("cialis", r"\b(?:buy|cheap|order|generic)\b.{0,60}cialis|cialis.{0,60}(?:\$|\bviagra|\blevitra|price|online)"),
        ("prescription", r"\bno (?:prior )?prescription\b|\bwithout (?:a )?prescription\b"),
        ("enlarge", r"\b(?:penis|manhood|breast)\b.{0,40}\benlarg|\benlarge your\b"),
        ("壮阳", ""),
        ("伟哥", r"伟哥.{0,40}(?:元|订|购|货到付款)"),
    )),
    Kind(3.5, "a fortune from a stranger", (
        ("next of kin", r"next of kin.{0,400}(?:million|fund|deposit|bank)|(?:million|fund|deposit"
                        r"|bank).{0,400}next of kin"),
        ("beneficiary", r"\bbeneficiary\b.{0,300}\b(?:million|fund)|\b(?:million|fund).{0,300}\bbeneficiary\b"),
        ("million", r"\bmillion\b.{0,20}\b(?:dollars?|usd|euros?|pounds?)\b.{0,400}\b(?:transfer"
                    r"|inherit|confiden|trust|foreign)"),
        ("have won", r"\byou have won\b|\bhas won\b.{0,40}(?:\$|prize|lottery|lotto)"),
        ("lottery", r"\blottery\b.{0,60}\b(?:winner|winning|prize|promotion)\b|\bwinn(?:er|ing)\b.{0,60}\blottery\b"),
        ("遗产", r"遗产.{0,40}(?:继承|美元|受益人)"),
        ("中奖", r"(?:恭喜|幸运).{0,20}中奖"),
    )),
    Kind(3.5, "extortion", (
        ("bitcoin", r"(?:recorded|filmed|video|webcam|hacked|infected).{0,600}bitcoin|bitcoin"
                    r".{0,600}(?:your contacts|hacked|48 hours)"),
        ("比特币", r"(?:录下|录制|视频|摄像头|黑客).{0,200}比特币"),
    )),
    Kind(3.0, "easy money", (
        ("home", r"\bwork(?:ing)? (?:from|at) home\b.{0,200}\$|\$.{0,200}\bwork(?:ing)? (?:from|at) home\b"),
        ("earn", r"\bearn \$?\d[\d,]{2,}.{0,24}\b(?:per|a|every|each) (?:day|week|month)\b"),
        ("make", r"\bmake \$\d[\d,]{2,}.{0,24}\b(?:per|a|every|each) (?:day|week|month)\b"),
        ("financial", r"\bfinancial(?:ly)? (?:freedom|independen(?:t|ce))\b"),
        ("刷单", ""),
        ("日结", r"兼职.{0,20}日结|日结.{0,20}兼职"),
        ("日赚", r"日赚.{0,4}\d"),
        ("月入", r"月入.{0,6}万"),
        ("躺赚", ""),
        ("稳赚", ""),
        ("荐股", ""),
        ("牛股", r"牛股.{0,40}(?:微信|群|QQ|推荐|免费)"),
        ("内幕", r"内幕.{0,6}(?:股|消息).{0,40}(?:微信|群|QQ|电话)"),
    )),
    Kind(3.0, "loans", (
        ("无抵押", r"无抵押.{0,20}[贷貸]|[贷貸].{0,20}无抵押"),
        ("贷款", r"贷款.{0,20}(?:当天|秒批|放款快|利率低|无需抵押).{0,80}(?:电话|微信|QQ|手机|联系|点击)"),
        ("credit", r"\b(?:bad credit (?:ok|no problem|welcome)|no credit check)\b|\bpre-?approved\b"
                   r".{0,40}\b(?:loan|mortgage|credit)\b"),
        ("mortgage", r"\b(?:lowest|low) (?:mortgage )?rates?\b.{0,80}\bmortgage\b|\bmortgage\b"
                     r".{0,80}\b(?:lowest|low) rates?\b"),
    )),
    Kind(3.0, "forged papers and goods", (
        ("刻章", r"刻章.{0,12}办\s?证|办\s?证.{0,12}刻章"),
        ("办证", r"办证.{0,12}(?:文凭|学历|证件)"),
        ("高仿", r"高仿.{0,6}(?:手表|名表|包|鞋)"),
        ("replica", r"\breplica\b.{0,24}\b(?:watch(?:es)?|rolex|handbags?)\b|\b(?:rolex|omega)\b.{0,24}\breplica"),
        ("diploma", r"\b(?:university )?diplomas?\b.{0,100}\b(?:no (?:tests|exams?|classes|books)|life experience)\b"),
    )),
    Kind(2.0, "addresses and tools for mass mail", (
        ("bulk", r"\bbulk e-?mail(?:ing|er|ers)?\b.{0,80}(?:\$|software|service|list)"),
        ("million", r"\bmillions? (?:of )?(?:fresh |opt-in )?e-?mail addresses\b"),
        ("群发", r"群发.{0,6}(?:软件|器|平台|服务)"),
        ("企业名录", ""),
        ("page", r"\b(?:first|1st|top) page (?:of|on|in) google\b"),
        ("backlink", r"\b(?:guest posts?|dofollow)\b.{0,80}\bbacklinks?\b|\bbacklinks?\b"
                     r".{0,80}\b(?:guest posts?|dofollow)\b"),
    )),
    Kind(2.0, "another way to get in touch", (
        ("微信", r"加\W?(?:我|我的|老师|助理|客服)?\W?微信\W{0,3}号?\W{0,2}[A-Za-z0-9_]{5,}"),
        ("薇信", ""),
        ("威信", r"加.{0,4}威信"),
        ("扣扣", r"扣扣.{0,4}\d{5,}"),
        ("whatsapp", r"whatsapp\W{0,4}\+?\d{8,}"),
    )),
    Kind(2.0, "a mailbox that is to be closed", (
        ("mailbox", r"\bmailbox\b.{0,80}\b(?:suspended|deactivated|closed|terminated|(?:quota"
                    r"|storage) (?:exceeded|is full))\b.{0,300}\b(?:click|verify|upgrade)\b"),
        ("verify your", r"\bverify your (?:mailbox|identity|password|account)\b.{0,160}\b(?:suspen"
                        r"|terminat|deactivat|limited)"),
        ("邮箱", r"邮箱.{0,24}(?:停用|冻结|即将过期|升级验证|容量已满|异常登录).{0,80}(?:点击|登录|验证)"),
    )),
    Kind(2.0, "courses for managers", (
        ("培训", r"培训.{0,200}(?:报名热线|报名电话|学费|培训费).{0,30}\d{3,}"),
        ("主办单位", r"主办单位.{0,300}(?:费用|学费|报名).{0,30}\d{3,}"),
        ("讲师介绍", ""),
    )),
)  # fmt: skip

_COMPILED = tuple(
    (kind, tuple((word, re.compile(pattern, re.I) if pattern else None) for word, pattern in kind.phrases))
    for kind in KINDS
)


def spoken_of(text: str) -> Iterator[Kind]:
    """The kinds that `text` speaks of, the weightiest first; line ends count as blanks."""
    text = " ".join(text[:MOST_LOOKED_AT].split()).lower()
    for kind, phrases in _COMPILED:
        if any(word in text and (pattern is None or pattern.search(text)) for word, pattern in phrases):
            yield kind
