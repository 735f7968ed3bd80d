"""The docker-filter room: the only one on the Docker socket, between the updater and the engine.

Whoever reaches the socket owns the machine, so nothing that the asker wrote is passed on. A request is read into a
value (`requests`), judged against what the engine says of this project (`rules`), and asked anew with words of our own
(`desk`, `engine`). What the updater may ask, each with or without `/v1.NN` before it:

    GET    /version  /_ping  /containers/json             this project's containers, whatever filter was asked for
    GET    /containers/NAME/json                          values of the environment as keyed digests (`redact`)
    GET    /containers/NAME/health                        {"healthy": true | false | null, "reason"}: the check that its
                                                          configuration has, run now; Docker itself runs it each minute
    GET    /images/REF/json  /distribution/REF/json
    POST   /images/create?fromImage=REF[&tag=TAG]         pull; the engine's progress is passed on
    POST   /images/REF/tag?repo=REPOSITORY&tag=TAG        DELETE /images/REF
    POST   /containers/NAME/stop[?t=S]  /start  /kill?signal=SIGTERM
    POST   /containers/NAME/rename?name=NEW               DELETE /containers/NAME
    POST   /containers/create?name=NAME                   {"Image": REF, "Labels": {"mailstead.update": ID,
                                                           "mailstead.source": name or id of the old container}}

The last derives the whole container from the old one and the new image (`carry`), creates it, joins its networks,
and compares what came out with the old one; a difference removes it again. The successor is called NAME when the old
one was renamed to NAME-before-ID, or NAME-next-ID while it was not; it carries ID as the label
`mailstead.update-id` and the old container's id as `mailstead.update-source`. Everything else is 403
`{"message": why}`.

What an attacker who holds the updater still can do: stop the rooms, pull any tag below MAILSTEAD_REGISTRY, and run an
image of a room's own repository as that room, an older one too. He learns no secret, runs nothing else, and reaches
neither the machine nor another project.

Owns nothing on disk but its record. Never sees mail.
"""
