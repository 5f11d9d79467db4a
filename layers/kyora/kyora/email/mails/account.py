"""Mail about accounts: to the address that the event names.

The lives of links are those of the tokens in them, which the accounts service makes.
"""

from datetime import timedelta

from kyora.bus import events
from kyora.email.mails.mail import Context, Data, Link, Mail, Person, Values

# ---- email_verification


class EmailVerification(Data):
    """A user has to prove that an address is theirs."""

    name: Person
    verification_link: Link


def _email_verification(event: events.EmailVerificationRequested, context: Context) -> Values:
    link = context.link("/verify-email", event.token)
    return {"name": context.name, "verificationLink": link}


EMAIL_VERIFICATION = Mail(
    id="email_verification",
    event=events.EmailVerificationRequested,
    data=EmailVerification,
    lifetime=timedelta(minutes=15),
    fill=_email_verification,
    expiring_link=True,
)

# ---- forgot_password


class ForgotPassword(Data):
    """A user asked for a new password."""

    name: Person
    reset_link: Link


def _forgot_password(event: events.PasswordResetRequested, context: Context) -> Values:
    return {"name": context.name, "resetLink": context.link("/reset-password", event.token)}


FORGOT_PASSWORD = Mail(
    id="forgot_password",
    event=events.PasswordResetRequested,
    data=ForgotPassword,
    lifetime=timedelta(minutes=15),
    fill=_forgot_password,
    expiring_link=True,
)

# ---- welcome


class Welcome(Data):
    """A user has joined a workspace."""

    name: Person
    workspace_name: Person


def _welcome(event: events.UserWelcomed, context: Context) -> Values:
    return {"name": context.name, "workspaceName": event.workspace_name}


WELCOME = Mail(
    id="welcome",
    event=events.UserWelcomed,
    data=Welcome,
    lifetime=timedelta(days=3),
    fill=_welcome,
)

# ---- workspace_invitation


class WorkspaceInvitation(Data):
    """A member invites a person to their workspace."""

    inviter_name: Person
    workspace_name: Person
    invitation_link: Link


def _workspace_invitation(event: events.WorkspaceInvitationCreated, context: Context) -> Values:
    return {
        "inviterName": event.inviter_name,
        "workspaceName": event.workspace_name,
        "invitationLink": context.link("/accept-invitation", event.token),
    }


WORKSPACE_INVITATION = Mail(
    id="workspace_invitation",
    event=events.WorkspaceInvitationCreated,
    data=WorkspaceInvitation,
    lifetime=timedelta(days=7),
    fill=_workspace_invitation,
    expiring_link=True,
)
