"""From the samples of `peers.py` to tables, a file and pictures: medians, shares of limits, ratios.

Each class has a table and a picture of its own. A ratio to a peer of the other class says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contestants import BATCH, CLASSES, FERRUM, OURS, PEERS, SPEEDS, Line
from formats import Work
from results import picture, print_failures, print_heading, spread, summaries, summary

HEADINGS = {"decode": "decode 1", "prefill": "prefill 512", "batch": f"decode {BATCH}"}
KERNEL_LOOP = "  its kernel loop"
NAME_WIDTH, CELL_WIDTH = 44, 22


def share_of_limit(metric: str, rate: float, work: Work, limits: Mapping[str, Mapping[str, float]]) -> float:
    """Of reading for one sequence, of arithmetic for a prompt; for a batch of whichever it is nearer to."""
    reading, arithmetic = limits["read_bytes_s"]["high"], limits["sgemm_flop_s"]["high"]
    if metric == "decode":
        return work.read_bytes * rate / reading
    if metric == "prefill":
        return 2 * work.prefill_products * rate / arithmetic
    return max(work.read_bytes * rate / BATCH / reading, 2 * work.decode_products * rate / arithmetic)


def limit_of(metric: str, work: Work, limits: Mapping[str, Mapping[str, float]]) -> float:
    """Tokens per second at which the share is 1."""
    return 1 / share_of_limit(metric, 1.0, work, limits)


def describe(
    lines: Sequence[Line],
    samples: Mapping[Line, Mapping[str, Sequence[Mapping[str, float]]]],
    works: Mapping[str, Work],
    limits: Mapping[str, Mapping[str, float]],
    errors: Mapping[Line, float],
) -> list[dict[str, Any]]:
    """For each line: its format, contestant, class and error, and by metric what was measured, if anything was."""
    described = []
    for line in lines:
        one: dict[str, Any] = {"format": line.format, "contestant": line.contestant, "class": line.group,
                               "settings": line.settings}  # fmt: skip
        if line in errors:
            one["error"] = errors[line]
        for metric, found in samples[line].items():
            if not found:
                continue
            names = [name for name in found[0] if name != "token"]
            one[metric] = summaries(found, names)
            if metric in SPEEDS:
                rate = one[metric]["tokens_s"]["median"]
                one[metric]["share_of_limit"] = share_of_limit(metric, rate, works[line.format], limits)
            if "kernel_loop_tokens_s" in one[metric]:
                ratios = [sample["tokens_s"] / sample["kernel_loop_tokens_s"] for sample in found]
                one[metric]["engine_to_kernel_loop"] = summary(ratios)
        described.append(one)
    return described


def ratios(described: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By format, metric and what ferrum computes in: of medians, to each peer. Of the start, how many times sooner."""
    found = []
    for ours in (one for one in described if one["contestant"] in OURS):
        for theirs in described:
            if theirs["contestant"] in PEERS and theirs["format"] == ours["format"]:
                found += [
                    {"format": ours["format"], "metric": metric, "contestant": ours["contestant"],
                     "class": ours["class"], "peer": theirs["contestant"], "peer_class": theirs["class"],
                     "ratio": value_of(ours, metric) / value_of(theirs, metric)}
                    for metric in (*SPEEDS, "start") if metric in ours and metric in theirs
                ]  # fmt: skip
    return found


def value_of(one: Mapping[str, Any], metric: str) -> float:
    """More is better."""
    if metric == "start":
        return 1 / float(one["start"]["first_token_s"]["median"])
    return float(one[metric]["tokens_s"]["median"])


# ---- tables
def print_tables(results: Mapping[str, Any]) -> None:
    print_heading(results)
    print("tokens/s, and the share of the limit: of reading for decode 1, of sgemm for prefill, of the nearer one for")
    print(f"decode {BATCH}; start: seconds to the first token; MiB: memory at most; error: relative L2 of logits")
    for group, meaning in CLASSES.items():
        lines = [one for one in results["lines"] if one["class"] == group]
        if lines:
            print(f"\n== {group}: {meaning}")
            print_table(lines, [ratio for ratio in results["ratios"] if ratio["class"] == group])


def print_table(lines: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> None:
    """Of one class."""
    headings = (*HEADINGS.values(), "start")
    for name in dict.fromkeys(one["format"] for one in lines):
        print(f"\n{name:{NAME_WIDTH}}{''.join(f'{heading:{CELL_WIDTH}}' for heading in headings)}{'MiB':8}error")
        for one in lines:
            if one["format"] == name:
                print_line(one)
        print_ratios([ratio for ratio in found if ratio["format"] == name])


def print_line(one: Mapping[str, Any]) -> None:
    cells = [speed_cell(one[metric]) if metric in one else "-" for metric in SPEEDS]
    cells.append(spread(one["start"]["first_token_s"], digits=2) if "start" in one else "-")
    memory = f"{one['decode']['peak_rss_bytes']['median'] / (1 << 20):.0f}" if "decode" in one else "-"
    error = f"{one['error']:.2g}" if "error" in one else "-"
    print(f"{one['contestant']:{NAME_WIDTH}}{''.join(f'{cell:{CELL_WIDTH}}' for cell in cells)}{memory:8}{error}")
    loops = [one.get(metric, {}).get("engine_to_kernel_loop") for metric in SPEEDS]
    if any(loops):
        cells = [loop_cell(one[metric]) if loop else "" for metric, loop in zip(SPEEDS, loops, strict=True)]
        print(f"{KERNEL_LOOP:{NAME_WIDTH}}{''.join(f'{cell:{CELL_WIDTH}}' for cell in cells)}".rstrip())


def speed_cell(found: Mapping[str, Any]) -> str:
    digits = 0 if found["tokens_s"]["median"] >= 100 else 1
    return f"{spread(found['tokens_s'], digits=digits)} {100 * found['share_of_limit']:.0f} %"


def loop_cell(found: Mapping[str, Any]) -> str:
    ratio = 100 * found["engine_to_kernel_loop"]["median"]
    return f"{found['kernel_loop_tokens_s']['median']:.0f}, engine {ratio:.0f} % of it"


def print_ratios(found: Sequence[Mapping[str, Any]]) -> None:
    """A line for each of ours and each peer."""
    for ours, peer in dict.fromkeys((ratio["contestant"], ratio["peer"]) for ratio in found):
        of_pair = {one["metric"]: one for one in found if (one["contestant"], one["peer"]) == (ours, peer)}
        one = next(iter(of_pair.values()))
        other = "" if one["class"] == one["peer_class"] else f" ({one['peer_class']})"
        cells = [f"× {of_pair[metric]['ratio']:.2f}" if metric in of_pair else "" for metric in (*SPEEDS, "start")]
        title = f"{ours} / {peer}{other}"
        print(f"{title:{NAME_WIDTH}}{''.join(f'{cell:{CELL_WIDTH}}' for cell in cells)}".rstrip())


def print_extras(results: Mapping[str, Any]) -> None:
    """The cold start, the neighbour, and whatever failed."""
    if results.get("cold_start_s"):
        print(
            f"\nvery first start of {FERRUM}, every kernel compiled: {results['cold_start_s']:.1f} s to the first token"
        )
    if results["neighbour"]:
        print(f"\n{'one busy neighbour':{NAME_WIDTH}}{'decode 1, quiet':{CELL_WIDTH}}{'beside it':{CELL_WIDTH}}share")
    for contestant, found in results["neighbour"].items():
        cells = "".join(f"{spread(found[name]):{CELL_WIDTH}}" for name in ("quiet_tokens_s", "beside_tokens_s"))
        print(f"{contestant:{NAME_WIDTH}}{cells}{spread(found['share'], 100, 0)} %")
    for contestant, settings in results["settings"].items():
        chosen = ", ".join(f"{metric}: {' '.join(*one.items())}" for metric, one in settings.items())
        print(f"\n{contestant} was faster with {chosen}")
    print_failures(results["failures"])


# ---- pictures
def draw(results: dict[str, Any], works: Mapping[str, Work], path: Path) -> None:
    """Of each class one of its own, beside each other as files."""
    for group in CLASSES:
        lines = [one for one in results["lines"] if one["class"] == group]
        if lines:
            draw_class(results, lines, works, path.with_stem(f"{path.stem}-{group}"))


def draw_class(results: dict[str, Any], lines: Sequence[Any], works: Mapping[str, Work], path: Path) -> None:
    """Bars by format and contestant, one panel a metric; a line across each group is the machine's limit."""
    contestants = list(dict.fromkeys(one["contestant"] for one in lines))
    names, width = list(dict.fromkeys(one["format"] for one in lines)), 0.8 / len(contestants)
    with picture(results, path, columns=len(SPEEDS), size=(14, 4.4)) as panels:
        for axes, metric in zip(panels, SPEEDS, strict=True):
            for number, contestant in enumerate(contestants):
                draw_bars(axes, lines, names, contestant, metric, (number + 0.5) * width - 0.4, width, f"C{number}")
            limits = [limit_of(metric, works[name], results["limits"]) for name in names]
            places = range(len(names))
            axes.hlines(limits, [x - 0.4 for x in places], [x + 0.4 for x in places], "0.4", ":", label="limit")
            axes.set_xticks(places, names)
            axes.set(title=f"{HEADINGS[metric]}, tokens/s", ylim=(0, None))
            axes.grid(axis="y", alpha=0.3)
        panels[0].legend(fontsize=8)


def draw_bars(
    axes: Any,
    lines: Sequence[Any],
    names: Sequence[str],
    who: str,
    metric: str,
    offset: float,
    width: float,
    colour: str,
) -> None:
    found = {one["format"]: one[metric]["tokens_s"] for one in lines if one["contestant"] == who and metric in one}
    places = [index + offset for index, name in enumerate(names) if name in found]
    rates = [found[name] for name in names if name in found]
    medians = [rate["median"] for rate in rates]
    bars = [[rate["median"] - rate["low"] for rate in rates], [rate["high"] - rate["median"] for rate in rates]]
    axes.bar(places, medians, 0.95 * width, yerr=bars, capsize=2, label=who, color=colour, error_kw={"lw": 0.8})
