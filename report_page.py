"""`report.json` as one self-contained HTML page; needs the `report` extra (Jinja2)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

__all__ = ["available", "render"]

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .25rem .6rem; border-bottom: 1px solid #d5dae0 }
th { text-align: left; font-weight: 600 } td.n { text-align: right; font-variant-numeric: tabular-nums }
code { background: #f2f4f6; padding: 0 .25rem } .bar { background: #3b7dd8; height: .7rem; display: inline-block }
.why { color: #5b6570 } details { margin: .1rem 0 }
</style></head><body>
<h1>{{ title }}</h1>
<p>Pipeline <code>{{ r.pipeline or "(empty)" }}</code>, seed {{ r.seed }}, {{ r.seconds }} s.</p>
{% for note in r.notes %}<p>{{ note }}</p>{% endfor %}
{% if r.not_compiled %}<p>Not compiled: {{ r.not_compiled }}</p>{% endif %}
<h2>Before and after</h2>
<table><tr><th></th><th>before</th><th>after</th></tr>
{% for key, name in sizes %}<tr><td>{{ name }}</td><td class="n">{{ "{:,}".format(r.before[key]) }}</td>
<td class="n">{{ "{:,}".format(r.after[key]) }}</td></tr>{% endfor %}</table>
<h2>Outputs against the original</h2>
{% if r.fidelity.unavailable %}<p>Not compared: {{ r.fidelity.unavailable }}</p>{% else %}
<p>{{ r.fidelity.samples }} {{ r.fidelity.inputs }} input(s).</p>
<table><tr><th>output</th><th>SQNR dB</th><th>max relative error</th><th>same arg max</th></tr>
{% for o in r.fidelity.outputs %}<tr><td>{{ o.output }}</td>
<td class="n">{{ "equal" if o.sqnr_db is none else o.sqnr_db }}</td><td class="n">{{ "%.1e" % o.relative }}</td>
<td class="n">{{ "" if o.agreement is none else "%.1f %%" % (100 * o.agreement) }}</td></tr>{% endfor %}</table>
{% endif %}
{% if r.prediction %}<h2>Predicted on real data</h2>
<p>From {{ r.prediction.inputs }} inputs. The errors hold in about two of three models.</p>
<table><tr><th>output</th><th>SQNR dB</th><th>all layers integer, dB</th><th>decisions as before</th></tr>
{% for o in r.prediction.outputs %}<tr><td>{{ o.output }}</td><td class="n">{{ o.sqnr_db }} ± {{ o.error_db }}</td>
<td class="n">{{ (r.prediction.all_integer or {}).get(o.output, "") }}</td>
<td class="n">{% if o.agreement is not none %}
{{ "%.1f %%" % (100 * o.agreement) }}, at least {{ "%.1f %%" % (100 * o.least_agreement) }}{% endif %}</td></tr>
{% endfor %}</table>
{% if r.prediction.without_samples %}<p>Without the samples:
{% for name, db in r.prediction.without_samples.items() %}{{ name }} {{ db }} dB{{ ", " if not loop.last }}{% endfor %}.
</p>{% endif %}
{% if hurting %}<p>Layers that cost most: {% for l in hurting %}<code>{{ l.layer }}</code> ({{ l.sqnr_db }} dB)
{{- ", " if not loop.last }}{% endfor %}.</p>
<table><tr><th>layer</th><th>operator</th><th>SQNR dB, this layer alone</th><th>share of all layers' noise</th></tr>
{% for l in r.prediction.layers %}<tr><td>{{ l.layer }}</td><td>{{ l.op }}</td><td class="n">{{ l.sqnr_db }}</td>
<td><span class="bar" style="width: {{ "%.0f" % (300 * l.share) }}px"></span>
{{ "%.1f %%" % (100 * l.share) }}</td></tr>
{% endfor %}</table>{% endif %}{% endif %}
{% for front in fronts %}{% if "time" in front[0] %}<h2>Time against predicted noise</h2>
<table><tr><th>share of the time in float</th><th>SQNR dB</th><th>layers in float</th></tr>
{% for p in front %}<tr><td class="n">{{ "%.1f %%" % (100 * p.time) }}</td><td class="n">{{ p.sqnr_db }}</td>
<td class="n">{{ p.layers }}</td></tr>{% endfor %}</table>{% else %}<h2>Size against predicted noise</h2>
<table><tr><th>weight bytes</th><th>SQNR dB</th><th>layers of 4 bits</th></tr>
{% for p in front %}<tr><td class="n">{{ "{:,}".format(p.bytes) }}</td><td class="n">{{ p.sqnr_db }}</td>
<td class="n">{{ p.layers }}</td></tr>{% endfor %}</table>{% endif %}{% endfor %}
<h2>Passes</h2>
<table><tr><th>pass</th><th>changed</th><th>skipped</th><th>seconds</th><th>SQNR dB of this pass</th></tr>
{% for p in r.passes %}<tr><td><details><summary>{{ p.spec }}</summary>
{% for c in p.changes %}<div>{{ c.site }} {{ c.op }} {{ c.detail }}</div>{% endfor %}
{% for s in p.skips %}<div class="why">left {{ s.site }} {{ s.op }}: {{ s.reason }}</div>{% endfor %}
{% if p.why_nothing %}<div class="why">{{ p.why_nothing }}</div>{% endif %}</details></td>
<td class="n">{{ p.changed }}</td><td class="n">{{ p.skips | length }}</td><td class="n">{{ "%.2f" % p.seconds }}</td>
<td>{% for f in p.measures.fidelity or [] %}{% if f.sqnr_db is not none %}
<span class="bar" style="width: {{ [f.sqnr_db, 0] | max }}px"></span> {{ f.sqnr_db }} {{ f.output }}<br>
{% endif %}{% endfor %}</td></tr>
{% endfor %}</table>
{% if r.placement %}<h2>Placement on {{ r.target.name }}</h2>
<table><tr><th>node</th><th>operator</th><th>type</th><th>runs on</th><th>why</th></tr>
{% for p in r.placement %}<tr><td>{{ p.node }}</td><td>{{ p.op }}</td><td>{{ p.dtype }}</td><td>{{ p.where }}</td>
<td class="why">{{ p.reason }}</td></tr>{% endfor %}</table>{% endif %}
<h2>Files</h2>
<table>{% for name, size in r.files.items() %}
<tr><td>{{ name }}</td><td class="n">{{ "{:,}".format(size) }} B</td></tr>{% endfor %}</table>
<p class="why">{% for name, version in r.versions.items() %}{{ name }} {{ version }}
{{- ", " if not loop.last }}{% endfor %}</p>
</body></html>
"""

_HURTING = 5  # layers named above the table
_SIZES = (("nodes", "nodes"), ("parameters", "parameters"), ("weight_bytes", "weight bytes"), ("macs", "MACs"))


def available() -> bool:
    """Whether the `report` extra is installed."""
    return find_spec("jinja2") is not None


def render(report: dict[str, Any]) -> str:
    """The page of a report; every text in it is escaped."""
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True).from_string(_TEMPLATE)
    name = report["input"].get("name", report["input"]["kind"])
    layers = (report.get("prediction") or {}).get("layers", [])
    return template.render(
        r=report,
        title=f"{name} → {report['target']['name']}",
        sizes=_SIZES,
        hurting=sorted(layers, key=lambda layer: layer["sqnr_db"])[:_HURTING],
        fronts=[record["measures"]["front"] for record in report["passes"] if "front" in record["measures"]],
    )
