"""Ten thousand mutated requests: each is answered once, and the service has not noticed."""

import json
import random
import re
from collections import Counter

import pytest

from tests.faults.test_hostile_requests import ORIGINALS, Case, mutate, send_all
from tests.rpc.raw import read_body
from tests.support.frames import RawSender
from tests.support.timing import TIMEOUT

SEED = 20261128
COUNT = 10_000
BATCH = 1_000

DEEPER = [
    json.dumps({"args": args, "kwargs": kwargs}).encode()
    for args, kwargs in [
        ([{"__type__": "decimal", "__value__": "1.50"}], {}),
        ([{"__type__": "bytes", "__value__": "abc"}], {"value": "\u00e9\U0001f600"}),
        ([[[[[[1, -2, 3.5e7, None, True, False, 'x\\"\n']]]]]], {}),
        ([], {"value": {"args": [], "kwargs": {}, "result": None, "error": {"exc_type": "X"}}}),
        (["x" * 500], {"a": "y" * 500}),
    ]
]


TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+')
SPARE = [
    *(b"null true false 0 -1 1.5 1e999 NaN -Infinity [] {} [[]] [null]".split()),
    *(b'"" "args" "kwargs" "value" "self" "__type__" "__value__" "bytes" "time"'.split()),
    *(rb'"\ud800" "\u0000" "\ud83d\ude00" "%s{}" {"a":1} {"__type__":"date"}'.split()),
    b"9" * 400,
    b"[" * 300 + b"]" * 300,
]


def rearrange(chance, body):
    """Replace, drop or swap a few tokens, so that what comes of it is JSON more often."""
    tokens = TOKENS.findall(body)
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(tokens))
        if tokens[at][:1] not in b"[]{}:,":
            tokens[at] = chance.choice(SPARE)
        elif chance.random() < 0.2:
            del tokens[at]
        else:
            other = chance.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
    return b" ".join(tokens)


@pytest.mark.long
@pytest.mark.timeout(TIMEOUT * 9)
def test_each_of_ten_thousand_mutated_requests_is_answered_once(
    attack, box, broker_uri, rpc_exchange, figure
):
    chance = random.Random(SEED)
    originals = [*ORIGINALS, *DEEPER]
    outcomes = Counter()
    with RawSender(broker_uri) as sender, attack() as target:
        replies = box()
        for first in range(0, COUNT, BATCH):
            bodies = [
                chance.choice([mutate, rearrange])(chance, chance.choice(originals))
                for _ in range(BATCH)
            ]
            keys = chance.choices([b"echo", b"anything", b"optional"], k=BATCH)
            cases = {
                f"{first + at}: {body!r}": Case(body, "any", key=key)
                for at, (body, key) in enumerate(zip(bodies, keys, strict=True))
            }
            sent = send_all(sender, rpc_exchange, target.name, replies.reply_to, cases)
            found = replies.take(BATCH)
            assert sorted(reply.correlation_id for reply, _ in found) == sorted(sent)
            for reply, body in found:
                title, _ = sent[reply.correlation_id]
                answer = read_body(reply, body)
                assert set(answer) == {"result", "error"}, title
                error = answer["error"]
                outcomes["result" if error is None else error["exc_type"]] += 1
            assert replies.left() == 0
    assert sum(outcomes.values()) == COUNT
    # Whatever else a mutation leads to would be a fault of ours, told to the caller.
    expected = {"result", "MalformedRequest", "IncorrectSignature", "UnserializableValueError"}
    assert set(outcomes) <= expected, outcomes
    figure("fuzz-rpc", f"{COUNT:,} of seed {SEED}, each answered: {dict(outcomes)}")
