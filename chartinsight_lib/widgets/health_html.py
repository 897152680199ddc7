"""A status -> the HTML of the health page, section by section. Pure; nothing in a status is taken for markup.

A state is always said in a word, too: colour alone tells some people nothing.
"""

from collections import Counter
from collections.abc import Sequence
from html import escape

from chartinsight_lib.status import text
from chartinsight_lib.status.judge import size, span
from chartinsight_lib.status.nouns import DayHeld, JobHealth, Pace, SlotOf, Status
from chartinsight_lib.widgets.status_strip import banner_html, pages_html, sentence_html

NAME = "Health"
ORDER = ("succeeded", "covered", "skipped", "running", "retrying", "failed", "due", "none", "to come")
SAYS = {"none": "not recorded"}
"""A slot of today before the first that was ever claimed."""
TONES = {"succeeded": "green", "failed": "red", "lost": "red", "OVERDUE": "red", "retrying": "amber", "running": "blue"}


def head_html(status: Status) -> str:
    """Write the line on top: the state, the market and its time."""
    cells = (
        f'<span class="ci-state ci-{status.state}" role="status">{status.state.upper()}</span>'
        f"<span>{escape(status.market)}</span><span><i>now</i>{status.now:%Y-%m-%d %H:%M:%S %Z}</span>"
    )
    simulated = status.freshness.simulated
    banner = banner_html("simulated", "Simulated data: no price in this market is real.") if simulated else ""
    return f'<div class="ci-strip">{pages_html(NAME)}{cells}</div>{banner}'


def broken_html(sentence: str) -> str:
    """Write the line on top when nothing can be read."""
    red = '<span class="ci-state ci-red" role="status">RED</span>'
    return f'<div class="ci-strip">{pages_html(NAME)}{red}</div>{banner_html("wrong", sentence)}'


def reasons_html(status: Status) -> str:
    """Write why the market is not green."""
    if not status.reasons:
        return '<p class="ci-well">Jobs run, data are fresh. Nothing needs a look.</p>'
    lines = "".join(
        f'<li><span class="ci-state ci-{reason.state}">{reason.state.upper()}</span>'
        f"<span><b>{escape(reason.about)}</b> {sentence_html(reason.says)}</span></li>"
        for reason in status.reasons
    )
    return f'<ul class="ci-reasons">{lines}</ul>'


def jobs_html(status: Status) -> str:
    """Write the table of the jobs, and below each the slots of its day."""
    heads = ("Job", "State", "Next", "Last slot", "Last run", "Took", "Last success", "What it did")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = "".join(_job(job, status) for job in status.jobs)
    return f'<h2>Jobs</h2><table class="ci-jobs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{_legend()}'


def facts_html(status: Status) -> str:
    """Write what there is to know besides the jobs."""
    held, storage = status.freshness, status.storage
    alive = [one for one in status.schedulers if one.alive]
    cards = [
        ("Daily bars", str(held.daily_day or "none"), text.daily_in_words(held)),
        ("Running day", _live_head(status), text.live_in_words(held)),
        ("Schedulers", f"{len(alive)} alive", text.schedulers_in_words(status)),
        ("Disk", f"{size(storage.free_bytes)} free", text.storage_in_words(status)),
        (
            "Backup",
            text.moment(storage.backup_at, status.now) if storage.backup_at else "none",
            text.backup_in_words(status),
        ),
    ]
    return f'<div class="ci-cards">{"".join(_card(*card) for card in cards)}</div>'


def completeness_html(status: Status) -> str:
    """Write how whole the newest days are, and which holes there are by kind."""
    held = status.completeness
    if held.checked_at is None:
        return f"<h2>Completeness</h2><p>{sentence_html('Not checked yet: `repair_gaps` does it.')}</p>"
    kinds = [("missing", held.missing), ("late", held.late), ("given up", held.given_up), ("explained", held.explained),
             ("findings", held.findings)]  # fmt: skip
    told = "".join(f"<li><b>{count:,}</b> {name}</li>" for name, count in kinds)
    oldest = f", the oldest open hole is of {held.oldest_open}" if held.oldest_open else ""
    bars = "".join(_day(day) for day in reversed(held.days))
    return (
        f"<h2>Completeness</h2><p><b>{text.percent(held.complete)}</b> of all expected daily bars are held or explained"
        f" (checked {text.moment(held.checked_at, status.now)}{oldest}).</p>"
        f'<div class="ci-days" role="list" aria-label="The newest {len(held.days)} days">{bars}</div>'
        f'<ul class="ci-kinds">{told}</ul>'
    )


def quota_html(status: Status) -> str:
    """Write how fast each API is asked, of how fast it may be, and what is used of a day's requests."""
    lines = [_pace(pace) for pace in status.quota.paces]
    lines += [
        _bar(
            escape(day.owner),
            day.used / day.limit,
            f"{day.used:,} of {day.limit:,} requests of today",
            high_is_bad=True,
        )
        for day in status.quota.allowances
    ]
    return "<h2>Quota</h2>" + ("".join(lines) or "<p>Nothing was asked within a day.</p>")


def alerts_html(status: Status) -> str:
    """Write the alerts that are open."""
    if not status.alerts:
        return "<h2>Alerts</h2><p>None is open.</p>"
    tones = {"critical": "red", "warning": "amber"}
    lines = "".join(
        f'<li><span class="ci-state ci-{tones.get(alert.level, "blue")}">{escape(alert.level)}</span>'
        f"<span>{escape(alert.subject)} <i>since {text.moment(alert.since, status.now)}</i></span></li>"
        for alert in status.alerts
    )
    return f'<h2>Alerts</h2><ul class="ci-reasons">{lines}</ul>'


def _job(job: JobHealth, status: Status) -> str:
    run, slot, now = job.last_run, job.last_slot, status.now
    state = text.slot_state(job)
    did = slot.reason if slot and slot.reason and slot.state in {"skipped", "covered"} else text.run_in_words(run)
    cells = [
        ("State", f'<b class="ci-word ci-{TONES.get(state, "plain")}">{escape(state)}</b>'),
        ("Next", text.moment(job.next_slot, now)),
        ("Last slot", text.moment(slot.slot if slot else None, now)),
        ("Last run", text.moment(run.started_at if run else None, now)),
        ("Took", text.duration(run)),
        ("Last success", text.moment(job.last_success, now)),
        ("What it did", escape(did or text.NOTHING)),
    ]
    row = "".join(f'<td data-label="{label}">{value}</td>' for label, value in cells)
    title = escape(job.schedule or "on request only")
    head = f'<tr><th scope="row" title="{title}">{escape(job.name)}<small>{title}</small></th>{row}</tr>'
    return head + (f'<tr class="ci-today"><td colspan="8">{_strip(job.name, job.today)}</td></tr>' if job.today else "")


def _strip(name: str, slots: Sequence[SlotOf]) -> str:
    """A cell per slot, and in words how many there are of each state."""
    counts = Counter(one.state for one in slots)
    words = ", ".join(f"{counts[state]} {SAYS.get(state, state)}" for state in ORDER if counts[state])
    cells = "".join(
        f'<i class="ci-slot ci-is-{one.state.replace(" ", "-")}" title="{one.slot:%H:%M} {SAYS.get(one.state, one.state)}"></i>'
        for one in slots
    )
    strip = f'<div class="ci-slots" role="img" aria-label="{escape(name)} today: {words}">{cells}</div>'
    return f'<div class="ci-line">{strip}<small>today: {words}</small></div>'


def _legend() -> str:
    marks = "".join(
        f'<span><i class="ci-slot ci-is-{state.replace(" ", "-")}"></i>{SAYS.get(state, state)}</span>'
        for state in ORDER
    )
    return f'<p class="ci-legend">Slots of today: {marks}</p>'


def _live_head(status: Status) -> str:
    held = status.freshness
    if held.cycle_s is None:
        return "not followed"
    return "market closed" if held.live_age_cycles is None else f"{held.live_age_cycles:.1f} cycles old"


def _card(title: str, value: str, words: str) -> str:
    return f'<div class="ci-card"><h2>{title}</h2><b>{escape(value)}</b><p>{escape(words)}</p></div>'


def _day(day: DayHeld) -> str:
    share = day.complete or 0.0
    kind = "whole" if share >= 1 else "nearly" if share >= 0.99 else "holed"
    holes = "".join(f", {count:,} {name}" for name, count in (("missing", day.missing), ("late", day.late)) if count)
    title = f"{day.day}: {text.percent(day.complete)} of {day.expected:,}{holes}"
    return (
        f'<div class="ci-day ci-{kind}" role="listitem" title="{title}"><i style="height:{max(share, 0.04) * 100:.0f}%"></i>'
        f"<small>{day.day:%d}</small><span>{title}</span></div>"
    )


def _pace(pace: Pace) -> str:
    words = f"{1 / pace.interval_s:.2g} a second"
    words += f", SLOWED DOWN from {1 / pace.usual_s:.2g}" if pace.slowed else ", full pace"
    words += f", {span(pace.backlog_s)} of queue" if pace.backlog_s >= 1 else ""
    return _bar(escape(pace.api), pace.usual_s / pace.interval_s, words, high_is_bad=False)


def _bar(label: str, share: float, words: str, *, high_is_bad: bool) -> str:
    bad = share >= 0.9 if high_is_bad else share < 0.98
    return (
        f'<div class="ci-quota"><b>{label}</b><div class="ci-meter{" ci-bad" if bad else ""}">'
        f'<i style="width:{min(max(share, 0.0), 1.0) * 100:.0f}%"></i></div><span>{words}</span></div>'
    )
