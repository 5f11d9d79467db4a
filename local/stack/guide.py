"""What a person sees when the stack is up, and the files that give it to other tools."""

import hashlib
import json
import shlex
from base64 import b64encode
from pathlib import Path
from typing import Any

from local import settings, template
from local.progress import say
from local.settings import Settings
from local.stack import deploy, emulator, seed

# A valid PNG of 8 by 8: small enough to read, real enough for the checks on an upload's bytes.
SAMPLE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000080000000808020000004b6d29dc"
    "000000114944415478da6390af8ac18a1886960400dfe13d4122f02d7c0000000049454e44ae426082"
)


def write_files(
    stack: Settings,
    functions: dict[str, dict[str, str]],
    in_containers: dict[str, dict[str, str]],
    console_token: str,
) -> dict[str, str]:
    """Write `.local/env` and what `make invoke` and `sam local` need; return what the first holds.

    Both tables are the variables of each function by logical id, here and in a container.
    """
    values = {
        "KYORA_URL": stack.url,
        "KYORA_TOKEN": seed.token(stack, settings.ADMIN),
        "KYORA_MEMBER_TOKEN": seed.token(stack, settings.MEMBER),
        "KYORA_WORKSPACE_ID": settings.WORKSPACE,
        "KYORA_BUSINESS_ID": settings.BUSINESS,
        "DATABASE_URL": stack.database_owner_url or stack.database_url,
        **emulator.credentials(stack.gateway_port),
        "AUTH_JWT_SECRET": stack.secrets["AUTH_JWT_SECRET"],
        "STRIPE_URL": stack.stripe_url if stack.own_stripe else "",
        "BILLING_STRIPE_API_KEY": stack.secrets["BILLING_STRIPE_API_KEY"],
        "BILLING_STRIPE_WEBHOOK_SECRET": stack.secrets["BILLING_STRIPE_WEBHOOK_SECRET"],
        "EMAIL_RESEND_WEBHOOK_SECRET": stack.secrets["EMAIL_RESEND_WEBHOOK_SECRET"],
        "KYORA_CONSOLE_TOKEN": console_token,
        "PORT": str(stack.port),
    }
    lines = [f"{name}={_value(value)}\n" for name, value in values.items()]
    _private(stack.home / "env", "".join(lines))
    _private(stack.home / "functions.json", json.dumps(functions, indent=2) + "\n")
    # `sam local invoke --env-vars` wants every variable of every function that is to change.
    _private(stack.home / "sam-env.json", json.dumps(in_containers, indent=2) + "\n")
    built = json.dumps(_for_sam_local(in_containers), indent=2)
    _private(stack.home / "sam-template.json", built + "\n")
    return values


def _for_sam_local(functions: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return the built template as `sam local` needs it here.

    It passes on only those variables that a template declares, and the deployed one does not
    declare where AWS is. It takes an authorizer only by its ARN. Its images must be for this
    machine.
    """
    built = template.read(deploy.BUILD / "template.yaml")
    everywhere = built["Globals"]["Function"]["Environment"]["Variables"]
    for logical, given in functions.items():
        properties = built["Resources"][logical]["Properties"]
        declared = properties.setdefault("Environment", {}).setdefault("Variables", {})
        declared |= dict.fromkeys(given.keys() - declared.keys() - everywhere.keys(), "")
    for authorizer in built["Resources"]["HttpApi"]["Properties"]["Auth"]["Authorizers"].values():
        logical = authorizer["FunctionArn"]["Ref"].removesuffix(".Alias")
        authorizer["FunctionArn"] = f"arn:aws:lambda:us-east-1:000000000000:function:{logical}"
    built["Parameters"]["Architecture"]["Default"] = settings.architecture()
    for resource in built["Resources"].values():
        for key in ("CodeUri", "ContentUri"):
            if key in resource.get("Properties", {}):
                resource["Properties"][key] = str(deploy.BUILD / resource["Properties"][key])
    return built


def _value(text: str) -> str:
    # Unquoted where a shell allows it: some tools that read this file know no quotes.
    return shlex.quote(text) if set(text) & set(" \t'\"$`\\&;|<>()#!*?[]{}") else text


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def commands(stack: Settings) -> list[tuple[str, str]]:
    """Return the three commands of an upload; each can be pasted into any shell as it is."""
    home = stack.home / "demo"
    home.mkdir(exist_ok=True)
    picture, answer = home / "hello.png", home / "upload.json"
    picture.write_bytes(SAMPLE)
    request = {
        "filename": picture.name,
        "contentType": "image/png",
        "size": len(SAMPLE),
        "sha256": b64encode(hashlib.sha256(SAMPLE).digest()).decode(),
    }
    env = shlex.quote(str(stack.home / "env"))
    auth = '-H "Authorization: Bearer $KYORA_TOKEN"'
    file, kept = shlex.quote(str(picture)), shlex.quote(str(answer))
    # Python turns the answer into a config file for curl: the URL and the signed headers.
    config = (
        "import json; u = json.load(open(0)); print('url = ' + json.dumps(u['uploadUrl'])); "
        "[print('header = ' + json.dumps(k + ': ' + v)) for k, v in u['headers'].items()]"
    )
    asset = "import json; print(json.load(open(0))['assetId'])"
    # In parentheses, so that the file's variables do not stay in the user's shell.
    ask = (
        f"(. {env}; curl -sS {auth} -H 'Content-Type: application/json' "
        f"-d '{json.dumps(request)}' -o {kept} $KYORA_URL/v1/assets/upload; cat {kept}; echo)"
    )
    put = f'python3 -c "{config}" < {kept} | curl -sS -f -K - -T {file} -w "%{{http_code}}\\n"'
    confirm = (
        f"(. {env}; curl -sS -X POST {auth} "
        f'$KYORA_URL/v1/assets/$(python3 -c "{asset}" < {kept})/confirm; echo)'
    )
    return [
        ("ask for an upload", ask),
        ("put the file where the answer says, with the headers it signed", put),
        ("confirm: the bytes are verified and the asset is ready", confirm),
    ]


def checkout(stack: Settings) -> str:
    """Return the command that makes a page to subscribe on; it can be pasted into any shell."""
    env = shlex.quote(str(stack.home / "env"))
    choice = {"planId": "professional", "successUrl": f"{stack.url}/", "cancelUrl": f"{stack.url}/"}
    return (
        f'(. {env}; curl -sS -H "Authorization: Bearer $KYORA_TOKEN"'
        f" -H 'Content-Type: application/json' -d '{json.dumps(choice)}'"
        " $KYORA_URL/v1/billing/checkout-session; echo)"
    )


def show(stack: Settings, values: dict[str, str], seconds: float) -> None:
    """Print the addresses, the token and the three commands."""
    server = "DATABASE_URL" if not stack.own_postgres else "PostgreSQL 18"
    say(f"\nKyora Integrations is up at {stack.url} after {seconds:.0f} s\n")
    say(f"  console   {stack.url}/   what is mailed at {stack.url}/mailbox")
    say(f"  API       {stack.url}/v1/health   described at {stack.url}/docs")
    say(f"  database  {server}, address in {stack.home / 'env'}")
    say(f"  AWS       {values['AWS_ENDPOINT_URL']}   (keys test / test)")
    if stack.own_stripe:
        say(f"  Stripe    {stack.stripe_url}/   a stand-in, with its dashboard and its clock")
    say("  logs      make logs")
    say(f"\nDemo token, {settings.ADMIN} of {settings.WORKSPACE} (KYORA_TOKEN in the file above):")
    say(f"\n{values['KYORA_TOKEN']}\n")
    say("Try an upload: three commands for another terminal.")
    for number, (title, command) in enumerate(commands(stack), 1):
        say(f"\n# {number}. {title}\n{command}")
    if stack.own_stripe:
        say("\nTry billing: open the page that this prints, and pay with 4242 4242 4242 4242.")
        say(f"\n{checkout(stack)}")
    say("\nSave a file under functions/ or layers/kyora/ and it is redeployed.")
    say("Ctrl-C stops everything.\n")
