"""One HTML file without scripts and without anything to load: text, tables, inline SVG, pictures and videos as data URIs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BYTES = 14_000_000
"""Budget of a page; who adds media asks `Budget` first."""

_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

_CSS = """
:root{color-scheme:light dark;--paper:#fdfdfb;--card:#fff;--ink:#1d2125;--muted:#687078;--grid:#e3e5e2;--band:#eef0e6;
--link:#0b5cad;--good:#00694d;--bad:#a63d00;--flat:#4a5a6a;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b5518b;
--c4:#8a6d00;--c5:#5b53c4;--c6:#3b8ea5;--c7:#7a5230;
--s0:#adb8c5;--s1:#86abd6;--s2:#5592cf;--s3:#1f66ad;--s4:#0b2f5e}
@media (prefers-color-scheme:dark){:root{--paper:#15181b;--card:#1c2024;--ink:#e6e8ea;--muted:#9aa3ab;--grid:#33393f;
--band:#262c2b;--link:#7ab8f5;--good:#5bc9a2;--bad:#f09a66;--flat:#a9b8c8;--c0:#5ab4ef;--c1:#f28a4b;--c2:#3fcf9f;
--c3:#e793c2;--c4:#dcc04a;--c5:#a9a3ff;--c6:#7fd0e3;--c7:#c9a27e;
--s0:#4d5a68;--s1:#416a98;--s2:#3f83c2;--s3:#70b4ee;--s4:#d8efff}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0 auto;max-width:68rem;padding:0 1.25rem 5rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Liberation Sans",Arial,sans-serif}
p,ul,header h1{max-width:44rem}
header{padding:2.5rem 0 .5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.3rem;margin:3rem 0 .4rem;line-height:1.25}
h3{font-size:1.02rem;margin:1.6rem 0 .3rem}
.question{font-size:1.12rem;color:var(--muted);margin:.2rem 0 1rem}
.answer{font-size:1.12rem;border-left:4px solid var(--c0);padding:.1rem 0 .1rem .9rem;margin:1.1rem 0}
.warn{border-left-color:var(--bad)}
.lead{color:var(--muted);margin:.2rem 0 1rem}
.badges span{display:inline-block;border:1px solid var(--grid);border-radius:99px;padding:.05rem .65rem;margin:0 .35rem .35rem 0;
font-size:.85rem;color:var(--muted)}
.badges .alert{color:var(--bad);border-color:var(--bad)}
nav{font-size:.92rem;border-block:1px solid var(--grid);padding:.6rem 0;margin:1.2rem 0}
nav a{margin-right:1rem;white-space:nowrap;display:inline-block;padding:.1rem 0}
a{color:var(--link);text-decoration-thickness:1px;text-underline-offset:2px}
a:focus-visible,video:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.scroll{overflow-x:auto;margin:.8rem 0;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;line-height:1.3}
th,td{padding:.42rem .55rem;text-align:right;border-bottom:1px solid var(--grid);vertical-align:top}
td{white-space:nowrap}
thead th{color:var(--muted);font-weight:600;font-size:.8rem;vertical-align:bottom;border-bottom-width:2px}
th[scope=row],th:first-child{text-align:left;font-weight:600}
.scroll th:first-child{position:sticky;left:0;background:var(--paper);z-index:1}
td small,th small{display:block;color:var(--muted);font-weight:400;font-size:.8rem}
tr.reference th,tr.reference td{color:var(--muted);font-weight:400}
tr.split td,tr.split th{border-bottom:2px solid var(--grid)}
td.best{font-weight:700}
td.words{text-align:left;white-space:normal;min-width:14rem}
.scroll th[scope=row]{min-width:8.5rem;max-width:15rem}
.scroll thead th{max-width:9rem}
.verdict{display:inline-block;border-radius:.3rem;padding:0 .4rem;font-size:.84rem;background:var(--band);color:var(--flat)}
.verdict.better,.verdict.yes,.verdict.passed{color:var(--good)}
.verdict.worse,.verdict.no,.verdict.failed{color:var(--bad)}
.verdict.exploratory,.verdict.none{background:none;padding:0;color:var(--muted)}
.forest{width:100%;font-size:.92rem}
.forest th,.forest td{text-align:left;border:0;padding:.2rem .9rem .2rem 0;vertical-align:middle}
.forest thead th{border-bottom:1px solid var(--grid);padding-bottom:.4rem}
.forest .plot{width:50%;padding-right:0;position:relative}
.forest tbody .plot{padding:0}
.forest .num{white-space:nowrap}
.forest svg{display:block;width:100%;overflow:visible}
.forest svg.strip{position:absolute;inset:0;height:100%}
.forest svg.axis{height:1.2rem;font-size:.78rem;fill:var(--muted)}
.forest .band{fill:var(--band)}.forest .zero{stroke:var(--muted);stroke-width:1}
.forest .ci{stroke:var(--c0);stroke-width:3;stroke-linecap:round}.forest .dot{fill:var(--c0)}
.forest .exploratory .ci{stroke:var(--muted);stroke-width:2}
.forest .exploratory .dot{fill:var(--paper);stroke:var(--muted);stroke-width:2}
.forest .exploratory th{font-weight:400}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.2rem 2rem}
figure{margin:.6rem 0;min-width:0}
figure svg,figure img,figure video{display:block;width:100%;height:auto;max-width:44rem}
figure svg *{stroke-linejoin:round}
figure.wide{overflow-x:auto}figure.wide svg{max-width:none;min-width:42rem}
figure img,figure video{border-radius:.3rem;background:#141418}
.grid figure img,.grid figure video{max-width:100%}
@media (min-width:56rem){.beside{display:grid;grid-template-columns:38rem 1fr;gap:2rem;align-items:end}
.beside figcaption{padding-bottom:1rem}}
figcaption{font-size:.86rem;color:var(--muted);margin:.35rem 0;max-width:44rem}
.key{font-size:.86rem;color:var(--muted);margin:.2rem 0 .8rem}
.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:50%;
vertical-align:-.08rem;margin:0 .3rem 0 .9rem}.key i:first-child{margin-left:0}
.notes{font-size:.86rem;color:var(--muted)}.notes li{margin:.2rem 0}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--link)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;font-size:.9rem}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
code{font-size:.9em;overflow-wrap:anywhere}
footer{margin-top:3rem;color:var(--muted);font-size:.86rem}
@media (max-width:40rem){body{padding:0 1rem 3rem}h1{font-size:1.5rem}h2{margin-top:2.2rem}
.forest thead,.forest tfoot td:not(.plot){display:none}
.forest tr{display:grid;grid-template-columns:1fr 6.8rem 6.1rem;align-items:baseline;padding:.5rem 0 .1rem}
.forest tr td{padding-right:.5rem}.forest .plot{grid-column:1/-1;width:100%}.forest svg.strip{position:static;height:2rem}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
@media print{nav,video{display:none}body{max-width:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""


@dataclass(frozen=True)
class Section:
    """One part of the page; `body` is HTML, `lead` is HTML shown under the heading."""

    anchor: str
    title: str
    body: str
    lead: str = ""


class Budget:
    """Bytes that media may still take."""

    def __init__(self, total: int = MAX_BYTES) -> None:
        self.left, self.refused = total, 0

    def take(self, uri: str) -> bool:
        """True, and counted, if the data URI still fits."""
        if len(uri) > self.left:
            self.refused += 1
            return False
        self.left -= len(uri)
        return True


def escape(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text))


def page(title: str, header: str, sections: Sequence[Section], footer: str = "") -> str:
    """The whole file.

    Args:
        title: plain text.
        header: HTML above the table of contents.
        sections: in reading order; empty ones are left out.
        footer: HTML.
    """
    sections = [s for s in sections if s.body]
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    parts = "".join(
        f'<section id="{s.anchor}" aria-labelledby="{s.anchor}-h"><h2 id="{s.anchor}-h">{escape(s.title)}</h2>'
        f"{f'<p class=lead>{s.lead}</p>' if s.lead else ''}{s.body}</section>\n"
        for s in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS.strip()}</style></head>\n"
        f'<body><header>{header}</header>\n<nav aria-label="Contents">{links}</nav>\n<main>\n{parts}</main>\n'
        f"<footer>{footer}</footer></body></html>\n"
    )


def figure(content: str, caption: str = "", beside: bool = False, wide: bool = False) -> str:
    """A figure around SVG, an image or a video; `caption` is plain text, beside it where the page is wide enough.

    A wide one takes the page's width and scrolls sideways on a narrow screen.
    """
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = " class=beside" if beside else ' class=wide tabindex=0 role=group aria-label="wide figure"' if wide else ""
    return f"<figure{kind}>{content}{text}</figure>"


def grid(figures: Sequence[str]) -> str:
    """Figures in two columns where the page is wide enough."""
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def image(uri: str, alt: str) -> str:
    """A picture with its text alternative."""
    return f'<img src="{uri}" alt="{escape(alt)}">'


def video(uri: str, label: str, poster: str = "") -> str:
    """A silent looping video with controls; `label` is its text alternative."""
    still = f' poster="{poster}"' if poster else ""
    return (
        f'<video controls loop muted playsinline preload="metadata"{still} aria-label="{escape(label)}">'
        f'<source src="{uri}" type="video/mp4">{escape(label)}</video>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = (), label: str = "table") -> str:
    """A table that scrolls sideways where it does not fit; the first column names the row.

    Args:
        head: HTML of the column titles.
        rows: HTML of the cells; a cell that starts with "<td" is taken as it is.
        classes: CSS class of each row.
        label: for screen readers.
    """
    out = []
    for i, row in enumerate(rows):
        name = classes[i] if i < len(classes) and classes[i] else ""
        cells = "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row[1:])
        out.append(f'<tr{f" class={chr(34)}{name}{chr(34)}" if name else ""}><th scope="row">{row[0]}</th>{cells}</tr>')
    columns = "".join(f'<th scope="col">{c}</th>' for c in head)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{''.join(out)}</tbody></table></div>"
    )


def items(values: Sequence[str], kind: str = "notes") -> str:
    """A list of plain texts."""
    return f'<ul class="{kind}">{"".join(f"<li>{escape(v)}</li>" for v in values)}</ul>' if values else ""


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Terms and what they are, plain text."""
    return f"<dl>{''.join(f'<dt>{escape(a)}</dt><dd>{escape(b)}</dd>' for a, b in pairs)}</dl>"
