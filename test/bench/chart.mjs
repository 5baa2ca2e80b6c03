// A bar chart as SVG. The colours are readable on white and on black, and text takes the one that suits.
const WIDTH = 860;
const LABELS = 330;
const VALUES = 60;
const BAR = 11;
const GAP = 12;

const COLOURS = { static: '#8a94a6', read: '#2f81f7', write: '#d9822b' };

const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 15px; }
  .own { font-weight: 600; }
  .value { font-size: 11px; }
  line { stroke: #1f2328; stroke-opacity: 0.35; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } line { stroke: #e6edf3; } }`;

/**
 * @typedef {{ label: string, own: boolean, shares: Partial<Record<'static' | 'read' | 'write', number>> }} Bar
 * @param {{ title: string, bars: Bar[] }[]} panels
 */
export function barChart(panels) {
  const shown = panels.flatMap(({ bars }) => bars.flatMap(({ shares }) => Object.values(shares)));
  const scale = (WIDTH - LABELS - VALUES) / Math.max(1, ...shown);
  const parts = [];
  let y = 24;
  for (const { title, bars } of panels) {
    parts.push(text(0, y, title, 'title'));
    y += 14;
    const top = y;
    for (const { label, own, shares } of bars) {
      const entries = Object.entries(shares);
      parts.push(text(LABELS - 10, y + (entries.length * BAR) / 2 + 5, label, own ? 'own' : '', 'end'));
      for (const [route, share] of entries) {
        const width = Math.max(1, share * scale).toFixed(1);
        parts.push(`<rect x="${LABELS}" y="${y}" width="${width}" height="${BAR - 1}" fill="${COLOURS[route]}"/>`);
        parts.push(text(LABELS + share * scale + 5, y + BAR - 2, share.toFixed(2), 'value'));
        y += BAR;
      }
      y += GAP;
    }
    const one = (LABELS + scale).toFixed(1);
    parts.push(`<line x1="${one}" x2="${one}" y1="${top - 4}" y2="${y - GAP + 4}"/>`);
    y += 26;
  }
  const routes = Object.entries(COLOURS).filter(([route]) =>
    panels.some(({ bars }) => bars.some(({ shares }) => route in shares)),
  );
  routes.forEach(([route, colour], index) => {
    const x = LABELS + index * 90;
    parts.push(`<rect x="${x}" y="${y - 10}" width="11" height="11" fill="${colour}"/>`, text(x + 17, y, route));
  });
  const height = Math.ceil(y + 14);
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`;
  return (
    `${head}\n<title>Requests per second as a share of the bare ` +
    `application</title>\n<style>${STYLE}\n</style>\n${parts.join('\n')}\n</svg>\n`
  );
}

function text(x, y, content, name = '', anchor = 'start') {
  const attributes = `${name && ` class="${name}"`}${anchor === 'start' ? '' : ` text-anchor="${anchor}"`}`;
  return `<text x="${Number(x).toFixed(1)}" y="${Number(y).toFixed(1)}"${attributes}>${escape(content)}</text>`;
}

function escape(content) {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
