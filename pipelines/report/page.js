(function () {
  "use strict";
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const tip = document.getElementById("tip");

  // The style of a mark says what it stands for; this says how it looks.
  function theme(isDark) {
    const ink = isDark ? "#d7dade" : "#30343b", faint = isDark ? "#33373d" : "#e6e8eb";
    const muted = isDark ? "#8d949e" : "#7b828c", accent = isDark ? "#7fb0ff" : "#2866c8";
    const warm = isDark ? "#ffb067" : "#c75d0a";
    const font = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
    return {
      background: "transparent",
      font: font,
      view: { stroke: null },
      axis: {
        labelColor: muted, titleColor: muted, gridColor: faint, domain: false, ticks: false, labelFontSize: 12,
        titleFontSize: 12, titleFontWeight: "normal", labelLimit: 150, labelPadding: 6,
      },
      style: {
        selected: { color: accent, opacity: 0.85 },
        selected_point: { color: accent, fillOpacity: 0.6, filled: true, strokeWidth: 0 },
        pool: { color: ink, opacity: 0.9 },
        median: { color: ink, opacity: 1 },
        range: { color: muted, strokeWidth: 1.5 },
        target: { color: warm, strokeWidth: 1.8, filled: false, opacity: 1 },
        curve: { color: accent, strokeWidth: 2 },
      },
      point: { color: accent },
      range: { heatmap: isDark ? ["#1b1e22", "#2b3037", "#565d68"] : ["#f4f5f7", "#dfe2e7", "#aeb4be"] },
    };
  }

  function show(handler, event, item, value) {
    if (value === null || value === undefined || value === "" || typeof value !== "object") {
      tip.hidden = true;
      return;
    }
    tip.replaceChildren();
    for (const [name, text] of Object.entries(value)) {
      const line = document.createElement("div"), label = document.createElement("span");
      label.textContent = name;
      line.append(label, document.createTextNode(String(text)));
      tip.append(line);
    }
    tip.hidden = false;
    const x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 14, fits = below + tip.offsetHeight < window.innerHeight;
    tip.style.left = Math.max(8, x) + "px";
    tip.style.top = (fits ? below : Math.max(8, event.clientY - 14 - tip.offsetHeight)) + "px";
  }

  function draw() {
    for (const [id, spec] of Object.entries(charts)) {
      vegaEmbed("#" + id, spec, {
        mode: "vega-lite", renderer: "canvas", ast: true, actions: false, defaultStyle: false,
        config: theme(dark.matches), tooltip: show,
      }).catch(function (error) {
        document.getElementById(id).textContent = "This plot could not be drawn: " + error.message;
      });
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();
