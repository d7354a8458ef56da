"""The live page in a real browser."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.watch.page import html
from orchestrator.watch.server import handler, page_routes
from orchestrator.watch.terminal import SweepProgress
from orchestrator.watch.watch import Watch
from parties.address import listen
from parties.metering.serving import HttpServer
from tests.helpers.browser import Page, browsing
from tests.helpers.needs import needs
from tests.helpers.samples import cell, failure, record
from tests.helpers.watching import Clock, progress_at
from tests.orchestrator.watch.test_watch import AS_IT_IS, LINKS

pytestmark = [
    pytest.mark.slow,
    needs("chromium"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),  # of the WebSocket client's own
]
NOTHING_YET = "[...document.querySelectorAll('.empty')].length"


class Served:
    """A run whose page is served."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.sweep = SweepProgress("quickstart", 3, self.clock)
        self.watch = Watch("quickstart-1", folder, self.sweep, self.clock)
        self.server = HttpServer(listen("127.0.0.1", 0), handler(page_routes(self.watch, html())))
        self.url = "http://{}:{}/".format(*self.server.address)

    def begin(self) -> None:
        self.sweep.begin([40.0, 20.0])
        self.watch.begin(cell(new_tokens=16))
        self.watch.links([*LINKS, AS_IT_IS])

    def work(self, start: int, stop: int) -> None:
        for t in range(start, stop):
            self.watch.update(progress_at(t))
            self.clock.now += 1


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    run = Served(tmp_path)
    yield run
    run.server.close()


def visit(served: Served, folder: Path, look: Callable[[Page], Awaitable[None]]) -> None:
    """Opens the page and checks it; its scripts must not fail meanwhile."""

    async def session() -> None:
        async with browsing(served.url, folder / "profile") as page:
            await page.wait("document.getElementById('state')?.textContent === 'live'")
            await look(page)
            assert page.errors == []

    asyncio.run(session())


def test_the_page_shows_every_panel_and_follows_the_run(served: Served, tmp_path: Path) -> None:
    served.watch.begin(cell())
    served.watch.end(failure(), None)
    served.begin()
    served.work(0, 5)

    async def look(page: Page) -> None:
        await page.wait("document.querySelectorAll('main svg[role=img]').length === 8")
        text = await page.value("document.body.innerText")
        for words in (
            *("TTFT", "TPOT", "ITL p50", "ITL p90", "ITL p99", "tokens per second", "acceptance"),
            *("quickstart", "1 of 3 cells: 1 party_died", "4 of 16", "server is gone; look at dmesg"),
            *("softmax", "client → server", "80 Mbit/s", "10.2 ms", "as it is", "5.0 GB of 8.0 GB are left"),
        ):
            assert words in text
        label = await page.value("document.querySelector('#parties svg[role=img]').getAttribute('aria-label')")
        assert label == "client, computing and blocked; after 4 s: computing 40 %, blocked 60 %"
        used = await page.value("document.querySelector('#used svg').getAttribute('aria-label')")
        assert "client → server 10 %" in used
        served.work(5, 9)
        await page.wait("document.body.innerText.includes('8 of 16')")
        served.watch.end(record(), None)
        await page.wait("document.body.innerText.includes('2 of 3 cells: 1 party_died, 1 ok')")

    visit(served, tmp_path, look)


def test_a_page_without_data_shows_a_message(served: Served, tmp_path: Path) -> None:
    async def look(page: Page) -> None:
        assert await page.value(NOTHING_YET) == 11
        assert "between cells" in await page.value("document.body.innerText")

    visit(served, tmp_path, look)


def test_when_the_run_is_gone_the_last_numbers_stay_with_a_message(served: Served, tmp_path: Path) -> None:
    served.begin()
    served.work(0, 5)

    async def look(page: Page) -> None:
        served.server.close()
        await page.wait("document.getElementById('state').textContent.startsWith('the run has ended')")
        assert await page.value("document.querySelectorAll('main svg[role=img]').length") == 8

    visit(served, tmp_path, look)


def test_a_party_without_progress_leaves_a_gap(served: Served, tmp_path: Path) -> None:
    served.begin()
    served.work(0, 5)
    for t in range(5, 9):
        served.watch.update(progress_at(t, server={"uptime_seconds": 14}))
        served.clock.now += 1

    async def look(page: Page) -> None:
        await page.wait("document.getElementById('memory').innerText.includes('server silent')")
        assert "client 500 MB" in await page.value("document.getElementById('memory').innerText")

    visit(served, tmp_path, look)


def test_charts_are_read_out_by_keys_and_the_page_can_be_paused(served: Served, tmp_path: Path) -> None:
    served.begin()
    served.work(0, 6)

    async def look(page: Page) -> None:
        for _ in range(20):  # the chart is reached by the keyboard alone
            await page.press("Tab")
            if await page.value("document.activeElement.id") == "memory":
                break
        assert await page.value("document.activeElement.id") == "memory"
        await page.press("Home")
        assert "at 0 s:" in await page.value("document.getElementById('memory').innerText")
        await page.press("ArrowRight")
        assert "at 1 s:" in await page.value("document.getElementById('memory').innerText")
        assert await page.value("document.querySelector('#memory .legend').getAttribute('aria-live')") == "polite"
        await page.press("Escape")
        assert "now:" in await page.value("document.getElementById('memory').innerText")
        await page.value("document.getElementById('pause').click()")
        served.work(6, 12)
        await asyncio.sleep(2.5)
        assert "5 of 16" in await page.value("document.body.innerText")
        await page.value("document.getElementById('pause').click()")
        await page.wait("document.body.innerText.includes('11 of 16')")

    visit(served, tmp_path, look)


def test_the_page_fits_every_width_in_light_and_dark(served: Served, tmp_path: Path) -> None:
    served.begin()
    served.work(0, 6)

    async def look(page: Page) -> None:
        await page.wait("document.querySelectorAll('main svg[role=img]').length === 8")
        for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 22, 26)")):
            await page.prefer(scheme)
            assert await page.value("getComputedStyle(document.body).backgroundColor") == paper
            for width, columns in ((400, 1), (1280, 2), (1920, 3)):
                await page.resize(width, 1000)
                assert await page.value("document.documentElement.scrollWidth") <= width
                grid = await page.value("getComputedStyle(document.querySelector('main')).gridTemplateColumns")
                assert len(grid.split()) == columns

    visit(served, tmp_path, look)
