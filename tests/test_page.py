"""The page for people, as a browser shows it: Debian's Chromium clicks through all of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from local.host import serving
from local.providers import Fault
from routing import page as page_module
from routing import wiring
from routing.decisions import new_id
from tests.conftest import LoopThread, unavailable
from tests.routes_for import CHAT, CHAT_PATH, KEY, NO_TLS, ONCE, Stage

CALLERS = {
    "tester": {"key": "env:ROUTER_TEST_CALLER"},
    "kim": {"key": "env:ROUTER_TEST_PROVIDER", "role": "admin"},
}
ADMIN = "provider-key-1"  # what ROUTER_TEST_PROVIDER holds
MARKUP = "<img src=x onerror=\"document.title='owned'\">"
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Over plain HTTP, behind both hosts.


def test_the_page_is_at_the_root(stage: Stage):
    stage.serve(stage.standin())
    with stage.http(headers={}) as client:
        answer = client.get("/?from=anywhere")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>LLM router</title>" in answer.text


def test_the_page_may_run_its_own_script_and_nothing_else(stage: Stage):
    stage.serve(stage.standin())
    with stage.http(headers={}) as client:
        policy = client.get("/").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'self' 'sha256-[\w+/=]{44}'", rules["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]{44}'", rules["style-src"])
    assert "unsafe" not in policy
    assert "http" not in policy


def test_another_script_has_another_hash():
    assert page_module.policy(b"<script>1</script>") != page_module.policy(b"<script>2</script>")


@pytest.mark.parametrize("name", ["index.html", "llm-chat.js"])
def test_nothing_comes_from_a_foreign_host(name):
    text = (page_module.STATIC / name).read_text()
    named = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", re.sub(r"(?m)(^|\s)// .*$", "", text)))
    assert named == ({"www.w3.org"} if name == "index.html" else set())  # the namespace of SVG


@pytest.mark.parametrize("path", ["/", "/llm-chat.js"])
def test_an_unchanged_file_is_not_sent_again(stage: Stage, path):
    stage.serve(stage.standin())
    with stage.http(headers={}) as client:
        first = client.get(path)
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["x-content-type-options"] == "nosniff"


def test_the_component_is_a_script_for_every_page(stage: Stage):
    stage.serve(stage.standin())
    with stage.http(headers={}) as client:
        answer = client.get("/llm-chat.js")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


def test_the_page_comes_also_when_the_routes_file_is_refused(stage: Stage):
    stage.serve_text("[routes.auto]\ntargets = ['nobody']\n")
    with stage.http(headers={}) as client:
        assert client.get("/health").status_code == 503
        assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("key", "told"),
    [(KEY, {"name": "tester", "role": "user"}), (ADMIN, {"name": "kim", "role": "admin"})],
    ids=["user", "admin"],
)
def test_a_key_says_whose_it_is(stage: Stage, key, told):
    stage.serve(stage.standin(), callers=CALLERS)
    with stage.http(headers={"api-key": key}) as client:
        assert client.get("/v1/router/caller").json() == told


def test_a_wrong_key_says_nothing(stage: Stage):
    stage.serve(stage.standin(), callers=CALLERS)
    with stage.http(headers={"api-key": "wrong"}) as client:
        assert client.get("/v1/router/caller").status_code == 401


# In the browser.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """Debian's Chromium, driven over its DevTools protocol."""
    chromium = shutil.which("chromium")
    if chromium is None:
        unavailable("Chromium is not installed, so no page was opened (apt-get install chromium)")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        unavailable("playwright is not installed (run make setup)")
    async with async_playwright() as driver:
        started = await driver.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield started
        await started.close()


Open = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Any) -> AsyncIterator[Open]:
    """`await open_page(stage, key=..., view="")`: a page in a profile of its own. A complaint of it fails the test."""
    contexts, complaints = [], []

    async def open_one(stage: Stage, key: str | None = KEY, view: str = "", **options: Any) -> Any:
        context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(20_000)  # on a busy machine
        contexts.append(context)
        opened = await context.new_page()
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda said: complaints.append(said.text) if _complains(said) else None)
        await opened.goto(f"{stage.url}/#{view}")
        if key is not None:
            await opened.fill("#key", key)
            await opened.press("#key", "Enter")
            await opened.wait_for_selector("nav:not([hidden]) a")
        return opened

    yield open_one
    for context in contexts:
        await context.close()
    assert complaints == []


def _complains(said: Any) -> bool:
    """Answers of 4xx and a router that is away are the browser's to log; everything else is ours to mend."""
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text


async def sees(page: Any, selector: str, text: str) -> None:
    """Waits until an element has that text in it."""
    await page.locator(selector).filter(has_text=text).first.wait_for()


async def ask(page: Any, text: str = "Hello there") -> None:
    await page.fill("llm-chat textarea", text)
    await page.press("llm-chat textarea", "Enter")


def in_browser(test: Any) -> Any:
    """A test in the browser's own loop; behind one host, because the page is the same behind both."""
    behind = pytest.mark.parametrize("serve_app", ["local_host"], indirect=True)
    return pytest.mark.asyncio(loop_scope="module")(behind(test))


@in_browser
async def test_a_key_that_nobody_has_is_refused(stage: Stage, open_page):
    stage.serve(stage.standin())
    page = await open_page(stage, key=None)
    await page.fill("#key", "wrong")
    await page.press("#key", "Enter")
    await sees(page, "#signin-error", "No caller has that key.")
    assert await page.locator("nav").is_hidden()


@in_browser
async def test_the_key_stays_in_its_tab(stage: Stage, open_page):
    stage.serve(stage.standin())
    page = await open_page(stage)
    await page.reload()
    await page.wait_for_selector("nav:not([hidden]) a")
    assert await page.evaluate("[localStorage.length, document.cookie, location.href.includes('caller-key')]") == [
        0,
        "",
        False,
    ]
    other = await page.context.new_page()
    await other.goto(stage.url)
    await other.wait_for_selector("#signin:not([hidden])")
    await page.click("#leave")
    await page.wait_for_selector("#signin:not([hidden])")
    assert await page.evaluate("sessionStorage.length") == 0


@in_browser
async def test_the_playground_streams_an_answer_and_shows_why_it_came_from_there(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"), stage.standin(name="two"))
    page = await open_page(stage)
    await ask(page)
    await sees(page, "llm-chat .assistant", "one (model-of-one) heard: Hello there")
    await sees(page, "#trace tr.chosen", "1. one")
    await sees(page, "#trace .attempts li", "answered")
    await sees(page, "#trace dl", "general")
    await page.click("#trace a[href^='#decisions/dec_']")
    await sees(page, "#one[open] .attempts", "1. one")


@in_browser
async def test_a_stopped_answer_stops_the_provider(stage: Stage, open_page):
    slow = stage.standin(name="slow", tokens_per_second=20, tokens=400)
    stage.serve(slow)
    page = await open_page(stage)
    await ask(page)
    await sees(page, "llm-chat .assistant", "slow")
    await page.click("llm-chat button:text-is('Stop')")
    await sees(page, "llm-chat .note", "Stopped.")
    assert "slow" in await page.inner_text("llm-chat .assistant")
    stage.until(slow, lambda standin: standin.left == 1)
    assert await page.locator("llm-chat button:text-is('Send')").is_visible()


@in_browser
async def test_a_failover_is_seen(stage: Stage, open_page):
    broken = stage.standin(name="broken", fault=Fault("status", status=503))
    stage.serve(broken, stage.standin(name="sound"), route={"retry": ONCE})
    page = await open_page(stage)
    await ask(page)
    await sees(page, "llm-chat .assistant", "sound (model-of-sound) heard")
    await sees(page, "#trace .attempts li", "1. broken fault Unavailable")
    await sees(page, "#trace .attempts li", "2. sound")
    await sees(page, "#trace tr.chosen", "sound")


@in_browser
async def test_attempts_are_seen_while_they_happen(stage: Stage, open_page):
    broken, silent = (
        stage.standin(name="broken", fault=Fault("status", status=503)),
        stage.standin(name="silent", fault=Fault("hang")),
    )
    stage.serve(broken, silent, route={"retry": ONCE})
    page = await open_page(stage)
    await ask(page)
    await sees(page, "#trace .attempts li", "1. broken fault Unavailable")
    await sees(page, "#trace .attempts li", "2. silent asking")
    await sees(page, "#trace tbody tr", "1. broken")
    await page.click("llm-chat button:text-is('Stop')")
    await sees(page, "#trace .attempts li", "2. silent neutral the caller left")
    assert await page.input_value("llm-chat textarea") == "Hello there"


@in_browser
async def test_an_example_is_one_click(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"))
    page = await open_page(stage)
    await sees(page, "#no-trace", "The plan appears here")
    await page.click("#examples button:text('translation')")
    await sees(page, "llm-chat .assistant", "heard: Translate into French")
    await sees(page, "#trace .attempts li", "1. one answered")
    assert await page.locator("#no-trace").is_hidden()


@in_browser
async def test_when_nobody_answers_the_attempts_are_shown_and_the_question_is_kept(stage: Stage, open_page):
    stage.serve(stage.standin(name="broken", fault=Fault("status", status=503)), route={"retry": ONCE})
    page = await open_page(stage)
    await ask(page, "Is anybody there?")
    await page.wait_for_selector("llm-chat .error")
    await sees(page, "#trace .attempts li", "1. broken")
    assert await page.input_value("llm-chat textarea") == "Is anybody there?"


@in_browser
async def test_an_answer_that_breaks_off_says_so_and_keeps_what_came(stage: Stage, open_page):
    stage.serve(stage.standin(name="cut", tokens=40, fault=Fault("cut", after=8)), route={"retry": ONCE})
    page = await open_page(stage)
    await ask(page)
    await page.wait_for_selector("llm-chat .error")
    assert (await page.inner_text("llm-chat .assistant")).startswith("cut")


@in_browser
async def test_hints_steer_and_the_plan_alone_asks_nobody(stage: Stage, open_page):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    stage.serve(one, two)
    page = await open_page(stage)
    await page.click("#hints summary")
    await page.uncheck("#allowed input[value=one]")
    await page.select_option("#task", "translation")
    await page.fill("llm-chat textarea", "Hello there")
    await page.click("#explain")
    await sees(page, "#trace tr.out", "one")
    await sees(page, "#trace tbody tr", "1. two")
    await sees(page, "#trace dl", "translation")
    assert one.asked == two.asked == 0
    await page.press("llm-chat textarea", "Enter")
    await sees(page, "llm-chat .assistant", "two")
    assert one.asked == 0


@in_browser
async def test_a_target_shows_its_state_and_an_admin_isolates_and_resets_it(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"), stage.standin(name="two"), callers=CALLERS)
    page = await open_page(stage, key=ADMIN, view="targets")
    card = page.locator("[data-target=one]")
    await sees(page, "[data-target=one] .tag", "closed")
    await card.locator("button:text('Isolate')").click()
    await page.fill("#order-reason", "broken for a while")
    await page.select_option("#order-seconds", "600")
    await page.press("#order-reason", "Enter")
    await sees(page, "[data-target=one] .tag", "isolated")
    await sees(page, "[data-target=one] .says", "broken for a while (kim)")
    assert re.search(r"for (9|10) min \d+ s more", await card.inner_text())
    assert stage.ask().headers["x-router-target"] == "two"
    await card.locator("button:text('Reset')").click()
    await page.fill("#order-reason", "mended")
    await page.click("#order-go")
    await sees(page, "[data-target=one] .tag", "closed")


@in_browser
async def test_an_open_breaker_counts_down(stage: Stage, open_page):
    broken = stage.standin(name="broken", fault=Fault("status", status=503))
    stage.serve(broken, stage.standin(name="sound"), route={"retry": ONCE})
    page = await open_page(stage, view="targets")
    for _ in range(5):
        stage.ask()
    await sees(page, "[data-target=broken] .tag", "open")
    await sees(page, "[data-target=broken] .says", "one probe in")
    await sees(page, "#totals div", "fallbacks5")
    await sees(page, "#by-task", "general 5")
    await sees(page, "[data-target=sound]", "5 answered")
    await sees(page, "[data-target=broken]", "0 answered; 5 attempts failed")
    await sees(page, "[data-target=broken]", "last error Unavailable")


@in_browser
async def test_a_chart_begins_with_what_was_answered_before_the_page_was_opened(stage: Stage, open_page):
    stage.serve(stage.standin(name="one", first_token=0.02))
    for _ in range(3):
        stage.ask(stream=True)
    page = await open_page(stage, key=None, view="targets")

    async def without_speeds(route: Any) -> None:
        answer = await route.fetch()
        told = await answer.json()
        targets = [{**target, "speed": None} for target in told["targets"]]
        await route.fulfill(response=answer, json={**told, "targets": targets})

    await page.route("**/v1/router/status", without_speeds)
    await page.fill("#key", KEY)
    await page.press("#key", "Enter")
    await page.locator("[data-target=one] polyline[points*=' ']").first.wait_for()
    await sees(page, "[data-target=one] figure", "ms")
    await page.unroute_all(behavior="ignoreErrors")


@in_browser
async def test_orders_are_not_offered_to_users(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"), callers=CALLERS)
    page = await open_page(stage, view="targets")
    await sees(page, "[data-target=one] .tag", "closed")
    assert await page.locator("button:text('Isolate')").is_hidden()


@in_browser
async def test_decisions_come_newest_first_and_while_one_looks(stage: Stage, open_page):
    broken = stage.standin(name="broken", fault=Fault("status", status=503))
    stage.serve(broken, stage.standin(name="sound"), route={"retry": ONCE})
    stage.ask()
    page = await open_page(stage, view="decisions")
    await sees(page, "#list tbody tr", "after 1 failed")
    stage.ask(model="sound")
    await sees(page, "#shown", "2 shown")
    await sees(page, "#list tbody tr:first-child", "answered")
    await page.select_option("#by-kind", "trouble")
    await sees(page, "#shown", "1 shown")
    await page.select_option("#by-kind", "")
    await page.fill("#by-route", "sound")
    await page.press("#by-route", "Enter")
    await sees(page, "#shown", "1 shown")
    await page.fill("#by-route", "")
    await page.press("#by-route", "Enter")
    await sees(page, "#shown", "2 shown")
    await page.click("#list tbody tr:last-child a")
    await sees(page, "#one[open] .attempts li", "1. broken fault Unavailable")
    await sees(page, "#one[open] .attempts li", "2. sound answered")
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#one", state="hidden")
    await page.wait_for_url("**/#decisions")


@in_browser
async def test_a_decision_has_an_address_of_its_own(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"))
    made = stage.ask().headers["x-router-decision-id"]
    page = await open_page(stage, view=f"decisions/{made}")
    await sees(page, "#one[open] dl", made)
    gone = await open_page(stage, view=f"decisions/dec_{0:032x}")
    await sees(gone, "#one[open]", "No such decision is kept.")


@in_browser
@pytest.mark.parametrize(
    ("view", "selector", "text"),
    [
        ("decisions", "#no-decisions", "No decisions yet"),
        ("spend", "#no-spend", "Nothing was used"),
        ("targets", "[data-target=one] figure", "not seen yet"),
    ],
)
async def test_nothing_has_happened_yet(stage: Stage, open_page, view, selector, text):
    stage.serve(stage.standin(name="one"))
    page = await open_page(stage, view=view)
    await sees(page, selector, text)


@in_browser
async def test_ten_thousand_decisions_are_shown_chunk_by_chunk(stage: Stage, open_page, hosts_loop):
    stage.serve(stage.standin(name="one"))
    made = stage.ask().headers["x-router-decision-id"]

    async def fill() -> None:
        decisions = (await wiring.current()).decisions
        first = decisions.get(made)
        assert first is not None
        for number in range(9_999):
            decisions.keep(replace(first, id=new_id(first.at + number + 1), at=first.at + number + 1))

    hosts_loop.run(fill())
    page = await open_page(stage, view="decisions")
    await sees(page, "#shown", "100 shown, there are older ones")
    for chunk in range(1, 10):
        await page.click("#older")
        await sees(page, "#shown", f"{100 + 1000 * chunk:,} shown, there are older ones")
    await page.click("#older")
    await sees(page, "#shown", "10,000 shown")
    assert await page.locator("#list tbody tr").count() == 10_000
    assert await page.locator("#older").is_hidden()


@in_browser
async def test_spend_is_added_up_by_what_one_chooses(stage: Stage, open_page):
    cheap, dear = {"price": {"input": 1.0, "output": 10.0}}, {"price": {"input": 4.0, "output": 40.0}}
    stage.serve(stage.standin(name="one"), stage.standin(name="two"), targets={"one": cheap, "two": dear})
    for model in ("chat", "chat", "two"):
        stage.ask(model=model)
    page = await open_page(stage, view="spend")
    await sees(page, "#sums div", "requests3")
    await page.select_option("#by", "target")
    await sees(page, "#spent tbody tr", "one")
    await sees(page, "#spent tbody tr", "two")
    rows = await page.locator("#spent tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["two", "one"]
    assert ["(75 %)" in row for row in rows] == [False, True]
    await sees(page, "#sums div", "saved$")
    with stage.http() as client:
        saved = client.get("/v1/router/usage").json()["data"][0]["saved_usd"]
    assert f"${saved:.6f}" in await page.inner_text("#sums")


@in_browser
async def test_a_key_that_expires_leads_back_to_the_sign_in(stage: Stage, open_page):
    standin = stage.standin(name="one")
    stage.serve(standin, callers=CALLERS)
    page = await open_page(stage, view="targets")
    await sees(page, "[data-target=one] .tag", "closed")
    stage.serve(standin, callers={"kim": CALLERS["kim"]})
    await sees(page, "#signin-error", "not accepted any more")
    assert await page.locator("[data-target]").count() == 0
    await page.fill("#key", ADMIN)
    await page.press("#key", "Enter")
    await sees(page, "[data-target=one] .tag", "closed")


@in_browser
async def test_a_router_that_goes_away_and_comes_back_is_taken_as_it_comes(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"))
    page = await open_page(stage, view="targets")
    await sees(page, "[data-target=one] .tag", "closed")
    await page.context.set_offline(True)
    await sees(page, "#away", "The router does not answer.")
    assert await page.locator("[data-target=one]").is_visible()
    await page.context.set_offline(False)
    await page.wait_for_selector("#away", state="hidden")
    await page.click("nav a[href='#playground']")
    await ask(page)
    await sees(page, "llm-chat .assistant", "one (model-of-one)")


@in_browser
async def test_a_refused_routes_file_is_explained(stage: Stage, open_page):
    stage.serve_text("[routes.auto]\ntargets = ['nobody']\n")
    page = await open_page(stage, key=None)
    await page.fill("#key", KEY)
    await page.press("#key", "Enter")
    await sees(page, "#signin-error", "routes.auto.targets[0]")


def marked(value: Any) -> Any:
    """The same document with markup in every text that names or says something."""
    if isinstance(value, dict):
        kept = ("object", "role", "kind", "state", "sharing", "outcome", "action")
        return {_marked_name(k): v if k in kept else marked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [marked(entry) for entry in value]
    return f"{value}{MARKUP}" if isinstance(value, str) else value


def _marked_events(stream: str) -> str:
    """The same stream with markup in what the router tells in it."""
    told = re.compile(r"(?m)^(event: router\.\w+\ndata: )(.*)$")
    return told.sub(lambda event: event[1] + json.dumps(marked(json.loads(event[2]))), stream)


def _marked_name(name: str) -> str:
    return f"{name}{MARKUP}" if name in ("one", "two") else name


@in_browser
async def test_whatever_a_client_or_a_provider_can_name_is_shown_as_text(stage: Stage, open_page):
    """Every text in every answer has markup in it; the page and the chat show it and build nothing of it."""
    broken = stage.standin(name="one", fault=Fault("status", status=503))
    stage.serve(broken, stage.standin(name="two"), callers=CALLERS, route={"retry": ONCE})
    page = await open_page(stage, key=None)

    async def mark(route: Any) -> None:
        answer = await route.fetch()
        if "json" in answer.headers.get("content-type", ""):
            return await route.fulfill(response=answer, json=marked(await answer.json()))
        text = (await answer.text()).replace("heard:", json.dumps(f"heard {MARKUP}")[1:-1])
        await route.fulfill(response=answer, body=_marked_events(text))

    await page.route("**/v1/**", mark)
    with stage.http(headers={"api-key": ADMIN}) as client:
        client.post(CHAT_PATH, json=CHAT)
        order = {"action": "isolate", "reason": MARKUP, "seconds": 60}
        client.post("/v1/router/breakers/two", json={**order, "action": "close"})
    await page.fill("#key", ADMIN)
    await page.press("#key", "Enter")
    await sees(page, "#name", f"kim{MARKUP}")
    await page.evaluate("document.querySelector('llm-chat').setAttribute('route', 'chat')")
    await ask(page, f"Hello {MARKUP}")
    await sees(page, "llm-chat .user", MARKUP)
    await sees(page, "llm-chat .assistant", MARKUP)
    await sees(page, "#trace", MARKUP)
    for view, selector in [("targets", "#cards"), ("decisions", "#list tbody"), ("spend", "#spent tbody")]:
        await page.click(f"nav a[href='#{view}']")
        await sees(page, selector, MARKUP)
        assert await _images(page) == 0
    await page.click("nav a[href='#decisions']")
    await page.locator("#list tbody a").first.click()
    await sees(page, "#one[open]", MARKUP)
    assert await _images(page) == 0
    assert "owned" not in await page.title()
    await page.unroute_all(behavior="ignoreErrors")


async def _images(page: Any) -> int:
    return int(await page.locator("img").count())  # also inside the chat's shadow root


@in_browser
async def test_an_error_with_markup_is_text(stage: Stage, open_page):
    refused = Fault("status", status=400, message=MARKUP)
    stage.serve(stage.standin(name="one", fault=refused))
    page = await open_page(stage)
    await ask(page)
    await sees(page, "llm-chat .error", MARKUP)
    assert await _images(page) == 0


@in_browser
async def test_the_keyboard_is_enough(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"), callers=CALLERS)
    page = await open_page(stage, key=None)
    assert await page.evaluate("document.activeElement.id") == "key"
    await page.keyboard.type(ADMIN)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("nav:not([hidden]) a")
    await page.locator(".skip").focus()
    for _ in range(2):
        await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Targets"
    await page.keyboard.press("Enter")
    await sees(page, "[data-target=one] .tag", "closed")
    for _ in range(10):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.textContent") == "Isolate…":
            break
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#order[open]")
    assert await page.evaluate("document.activeElement.id") == "order-reason"
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#order", state="hidden")
    assert await page.evaluate("document.activeElement.textContent") == "Isolate…"


@in_browser
@pytest.mark.parametrize("width", [390, 1280, 1920])
async def test_no_view_is_wider_than_the_screen(stage: Stage, open_page, width):
    stage.serve(stage.standin(name="one-with-a-name-of-some-length"), stage.standin(name="two"))
    page = await open_page(stage, viewport={"width": width, "height": 844})
    await ask(page, "averylongword" * 40)
    await sees(page, "#trace .attempts li", "answered")
    for view in ("playground", "targets", "decisions", "spend"):
        await page.click(f"nav a[href='#{view}']")
        await page.wait_for_selector(f"[data-view={view}]:not([hidden])")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


@in_browser
async def test_light_and_dark_follow_the_system(stage: Stage, open_page):
    stage.serve(stage.standin(name="one"))
    grounds = []
    for scheme in ("light", "dark"):
        page = await open_page(stage, key=None, color_scheme=scheme)
        colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(int(part) for part in re.findall(r"\d+", colour)[:3]))
    assert grounds[0] > 600
    assert grounds[1] < 150


@pytest.fixture
def elsewhere(stage: Stage, hosts_loop: LoopThread) -> Iterator[tuple[str, list[Request]]]:
    """Another site, whose backend asks the router for its pages: its address, and what its pages asked."""
    stage.serve(stage.standin(name="one"))
    asked: list[Request] = []

    async def home(_: Request) -> Response:
        return HTMLResponse(f"""<!doctype html><llm-chat route="chat" endpoint="/llm"></llm-chat>
          <script>const chat = document.querySelector("llm-chat");
            chat.key = async () => "of-the-page"; chat.hints = {{ task: "translation" }};
            addEventListener("llm-end", (event) => {{ document.title = event.detail.text; }});</script>
          <script src="{stage.url}/llm-chat.js" defer></script>""")

    async def backend(request: Request) -> Response:
        asked.append(request)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=stage.url, trust_env=False, verify=NO_TLS) as client:
            answer = await client.post(CHAT_PATH, content=await request.body(), headers=headers)
        return Response(answer.content, answer.status_code, media_type="text/event-stream")

    site = Starlette(routes=[Route("/", home), Route(f"/llm{CHAT_PATH}", backend, methods=["POST"])])
    stack = AsyncExitStack()
    yield hosts_loop.run(stack.enter_async_context(serving(site, drain_seconds=1))), asked
    hosts_loop.run(stack.aclose())


@in_browser
async def test_a_page_of_another_host_includes_the_chat_and_asks_through_its_own_backend(
    stage: Stage, elsewhere, open_page
):
    """What docs/embedding.md shows: properties that were set before the script was there, a key that is a promise."""
    url, asked = elsewhere
    page = await open_page(stage, key=None)
    await page.goto(url)
    await ask(page)
    await sees(page, "llm-chat .assistant", "one (model-of-one) heard: Hello there")
    await page.wait_for_function("document.title !== ''")
    [request] = asked
    assert request.headers["authorization"] == "Bearer of-the-page"
    with stage.http() as client:
        [made] = client.get("/v1/router/decisions").json()["data"]
    assert (made["model"], made["plan"]["task"]["kind"]) == ("chat", "translation")
    assert await page.title() == "one (model-of-one) heard: Hello there"
