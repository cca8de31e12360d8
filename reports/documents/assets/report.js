// Unpacks plotly and the figures from the page itself and draws them; follows the colour scheme.
// Without it (or without script) every figure still has its table.
"use strict";
(async () => {
  async function unpack(id) {
    const text = document.getElementById(id).textContent;
    const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  const figures = JSON.parse(await unpack("figures"));
  if (!figures.length) { document.documentElement.dataset.drawn = "0"; return; }
  const script = document.createElement("script");
  script.textContent = await unpack("plotly");
  document.head.append(script);

  // "--c1" anywhere in a string is the value of that CSS variable.
  function coloured(value, css) {
    if (typeof value === "string") {
      return value.replace(/--(?:c\d(?:-soft)?|shade|grid|ink|faint|paper|pass|fail)\b(?!-)/g, (name) => css.getPropertyValue(name).trim());
    }
    if (Array.isArray(value)) {
      return typeof value.at(-1) === "number" ? value : value.map((item) => coloured(item, css));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, css)]));
    }
    return value;
  }

  function draw() {
    const css = getComputedStyle(document.documentElement);
    const ink = css.getPropertyValue("--ink").trim(), grid = css.getPropertyValue("--grid").trim();
    let drawn = 0;
    for (const figure of figures) {
      const place = document.getElementById(figure.key);
      const layout = coloured(figure.layout, css);
      for (const key of Object.keys(layout)) {
        if (/^[xy]axis\d*$/.test(key)) {
          layout[key] = { gridcolor: grid, zerolinecolor: grid, automargin: true, ...layout[key] };
        }
      }
      const base = {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
        margin: { l: 52, r: 12, t: 8, b: 40 }, hovermode: "x unified", autosize: true,
        hoverlabel: { bgcolor: css.getPropertyValue("--panel").trim(), font: { color: ink } },
      };
      Plotly.react(place, coloured(figure.traces, css), { ...base, ...layout },
        { responsive: true, displaylogo: false, displayModeBar: false });
      drawn += 1;
    }
    document.documentElement.dataset.drawn = String(drawn);
  }
  draw();
  // Paper is narrower than the window, and the browser lays it out only after this event.
  const resize = (layout) => document.querySelectorAll(".plot").forEach((place) => Plotly.relayout(place, layout));
  addEventListener("beforeprint", () => resize({ width: 680, autosize: false }));
  addEventListener("afterprint", () => resize({ width: null, autosize: true }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
