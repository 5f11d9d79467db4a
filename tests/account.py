"""An AWS account with one function that answers as asked: CloudFormation and Lambda."""

import threading

from tests.scripted import Answer, Request

FUNCTION = "kyora-staging-a-function"
XML = """<DescribeStackResourceResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
<DescribeStackResourceResult><StackResourceDetail><PhysicalResourceId>NAME</PhysicalResourceId>
<LogicalResourceId>AFunction</LogicalResourceId></StackResourceDetail>
</DescribeStackResourceResult></DescribeStackResourceResponse>""".replace("NAME", FUNCTION)


class Account:
    """CloudFormation, and a Lambda that gives these answers."""

    def __init__(self) -> None:
        self.answers = [Answer(body=b'{"next": null}')]
        self.invoked: list[Request] = []
        self.came = threading.Semaphore(0)  # one for each invocation

    def answer(self, request: Request) -> Answer:
        if request.path == "/":
            return Answer(body=XML.encode(), headers={"Content-Type": "text/xml"})
        self.invoked.append(request)
        self.came.release()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
