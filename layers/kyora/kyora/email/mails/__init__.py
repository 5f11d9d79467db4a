"""The mails that Kyora sends, one entry each.

    mail       what an entry is, and the types of what mails show
    account    verification, password, welcome, invitation
    assets     files in which malware was found
    billing    subscriptions, payments, cards
    catalogue  every entry, by its id and by its event

A new mail is one block of a module above the catalogue (the model of what its template shows, a
function that fills it from the event, a `Mail`) and two templates, `templates/en/<id>.j2` and
`templates/ar/<id>.j2`. The event has to be in `kyora.bus.events` and in the rule of send_email in
template.yaml. An entry that lacks a part fails at import; tests/unit/test_mails.py fills every
one from its event's sample.
"""
