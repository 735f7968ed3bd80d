"""`explain`: why a message or a connection was decided on as it was, and what the owner can do about it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.explanation import Explanation, elsewhere, explain
from services.admin.parts import Parts
from services.admin.text import language, speak
from services.admin.verdicts import Verdicts

# What a person types after --lang, and the tag that it means.
LANGUAGES = {"en": "en", "zh": "zh-CN", "zh-CN": "zh-CN"}


def router(parts: Parts) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["trace"], responses=ERRORS)
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/explain")
    async def show(
        actor: asking,
        query: Annotated[str, Query(max_length=1000, description="IP address, address, Message-ID or id of a reply")],
        limit: Annotated[int, Query(ge=1, le=200)] = 10,
        lang: Annotated[Literal["en", "zh", "zh-CN"], Query(description="the language of causes and advice")] = "en",
        fresh: Annotated[bool, Query(description="wait 0.6 s for what rooms are just writing")] = False,
    ) -> Explanation:
        """The newest messages and connections that `query` is part of, newest first, refused and put off ones too.

        Stage by stage: each rule with its weight and sentence, the DNS answers that were looked at, the score against
        its limit, the reply, the folder, and what the owner can do. Nothing found: `elsewhere` says where to look.
        """
        speak(LANGUAGES[lang])
        stories = await parts.tail.stories(query, limit, fresh=fresh)
        settings = parts.context.settings
        return Explanation(
            query=query,
            language=language(),
            found=[explain(story, threshold_of(parts)) for story in stories],
            elsewhere=[] if stories else elsewhere(query, settings.events_days),
        )

    @routes.get("/verdicts")
    async def count(
        actor: asking, days: Annotated[int, Query(ge=1, le=90, description="how far back")] = 7
    ) -> Verdicts:
        """What was decided about incoming mail: by outcome and rule, lists that do not answer, who is greylisted."""
        return await parts.tail.verdicts(days)

    return routes


def threshold_of(parts: Parts) -> float | None:
    """The score from which mail is junk, as this room's settings have it; None where they do not say."""
    given = getattr(parts.context.settings, "junk_score", None)
    try:
        return float(given) if given is not None else None
    except ValueError:
        return None
