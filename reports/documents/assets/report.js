// Unpacks plotly and the figures from the page itself and draws them; follows the colour scheme.
// Without it (or without script) every figure still has its table. Marks tables that are wider than the window.
"use strict";
(async () => {
  const widths = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const scrolls = target.scrollWidth > target.clientWidth + 1;
      target.previousElementSibling.hidden = !scrolls;
      target.tabIndex = scrolls ? 0 : -1;
    }
  });
  document.querySelectorAll(".wide").forEach((table) => widths.observe(table));

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

  // A picture leaves the page, and with it what must not be overlooked: it takes that along.
  function save(place) {
    const words = [...document.querySelectorAll(".banner")].map((banner) => banner.textContent.split(":")[0]);
    words.push(place.closest("figure").querySelector("b").textContent, document.querySelector("h1").textContent);
    const text = words.join(" · ").replace(/[&<>]/g, (mark) => `&#${mark.charCodeAt(0)};`);
    const width = Math.max(640, place.clientWidth), height = place.clientHeight + 32, { margin } = place.layout;
    const title = { text, x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 10 }, font: { size: 14 } };
    const layout = { ...place.layout, title, width, height, margin: { ...margin, t: margin.t + 32 } };
    return Plotly.downloadImage({ data: place.data, layout }, { format: "png", scale: 2, width, height,
      filename: `${words.at(-1)}-${place.id}`.replace(/[^\w.-]+/g, "-").slice(0, 120) });
  }

  // Ranges as they were drawn first; a double click does the same.
  function reset(place) {
    const figure = figures.find(({ key }) => key === place.id), change = {};
    for (const key of Object.keys(place.layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      const range = figure.layout[key]?.range;
      change[range ? `${key}.range` : `${key}.autorange`] = range ? [...range] : figure.layout[key]?.autorange || true;
    }
    return Plotly.relayout(place, change);
  }

  // A finger on a figure scrolls the page, and doesn't zoom.
  const touch = matchMedia("(pointer: coarse)").matches;

  function draw() {
    const css = getComputedStyle(document.documentElement);
    const ink = css.getPropertyValue("--ink").trim(), grid = css.getPropertyValue("--grid").trim();
    let drawn = 0;
    for (const figure of figures) {
      const place = document.getElementById(figure.key);
      const layout = coloured(figure.layout, css);
      for (const key of Object.keys(layout)) {
        if (/^[xy]axis\d*$/.test(key)) {
          layout[key] = { gridcolor: grid, zerolinecolor: grid, automargin: true, exponentformat: "none",
            separatethousands: true, ...layout[key] };
        }
      }
      const base = {
        paper_bgcolor: css.getPropertyValue("--paper").trim(), plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
        margin: { l: 52, r: 12, t: 8, b: 40 }, hovermode: "x unified", autosize: true, dragmode: touch ? false : "zoom",
        modebar: { bgcolor: "rgba(0,0,0,0)", color: css.getPropertyValue("--faint").trim(), activecolor: ink },
        hoverlabel: { bgcolor: css.getPropertyValue("--panel").trim(), font: { color: ink } },
      };
      Plotly.react(place, coloured(figure.traces, css), { ...base, ...layout },
        { responsive: true, displaylogo: false, displayModeBar: true, modeBarButtons: [[
          { name: "reset", title: "Reset zoom", icon: Plotly.Icons.home, click: reset },
          { name: "png", title: "Save as PNG", icon: Plotly.Icons.camera, click: save },
        ]] });
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
