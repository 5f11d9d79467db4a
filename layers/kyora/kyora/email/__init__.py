"""E-mail: from a domain event to a message, its delivery and what became of it.

    event ── delivery ── recipients, mails ── render ── provider (resend or mock)
                 │                                          │
           email_message ◄──────────── webhook ◄────────────┘      suppressions

What each module does:

    mails         one entry per mail: its event, what it shows, how long it is worth sending
    recipients    who gets an event's mail, and in which language
    books         what our own data says of the subscription that a mail is about
    render        template, locale and data become subject, HTML and text (text, address)
    delivery      one row per message, leased: sent once, whatever crashes or repeats
    retry         when a message is tried again, and when no more
    message       a message, and a provider's answer to it
    provider      what sends: resend (resend_http) or mock
    webhook       what Resend reports later
    suppressions  addresses that get no mail
    reputation    how much of a day's mail bounced or was complained about
    by_hand       list mail, send it again, mark failures as seen
    retention     how long mail is kept
"""
