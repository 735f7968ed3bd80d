"""`trace`: what every room decided about a message or a connection, in order, with reasons."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.parts import Parts
from services.admin.stories import Event, Story, flat, sentence, sentences


def router(parts: Parts) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["trace"], responses=ERRORS)
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/trace")
    async def trace(
        actor: asking,
        query: Annotated[str, Query(max_length=1000, description="address, Message-ID, trace or queue id, IP address")],
        limit: Annotated[int, Query(ge=1, le=200)] = 20,
        fresh: Annotated[bool, Query(description="wait 0.6 s for what rooms are just writing")] = False,
    ) -> dict[str, Any]:
        """The newest stories that `query` is part of; `events` are those of all of them in the order they happened."""
        stories = await parts.tail.stories(query, limit, fresh=fresh)
        return {
            "query": query,
            "stories": [story_json(story) for story in stories],
            "events": [event_json(event) for event in flat(stories)],
        }

    return routes


def story_json(story: Story) -> dict[str, Any]:
    """A story as the API shows it."""
    texts = sentences(story.events)
    told = [{**event_json(event), "text": text} for event, text in zip(story.events, texts, strict=True)]
    return {**story.summary(), "events": told}


def event_json(event: Event) -> dict[str, Any]:
    """An event as it was recorded, and in words as `text`."""
    return {**{name: value for name, value in event.items() if name != "id"}, "text": sentence(event)}
