// Run in the page, by Playwright: nothing from outside these functions exists there.

/**
 * Texts with less contrast to their ground than WCAG 2 asks for at level AA, 4.5 to 1, or 3 to 1 where
 * letters are large. Colours must be opaque.
 */
export function lowContrast() {
  const channels = (color) => (color.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = (color) => {
    const [red, green, blue] = channels(color).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const groundOf = (element) => {
    if (!element) return 'rgb(255, 255, 255)';
    const { backgroundColor } = getComputedStyle(element);
    return channels(backgroundColor)[3] === 0 ? groundOf(element.parentElement) : backgroundColor;
  };

  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement, textContent } = walker.currentNode;
    if (!parentElement || !textContent?.trim()) continue;
    const { color, fontSize, fontWeight } = getComputedStyle(parentElement);
    const [lighter, darker] = [luminance(color), luminance(groundOf(parentElement))].toSorted((a, b) => b - a);
    const contrast = (lighter + 0.05) / (darker + 0.05);
    const isLarge = Number.parseFloat(fontSize) >= (Number(fontWeight) >= 700 ? 18.66 : 24);
    if (contrast < (isLarge ? 3 : 4.5)) found.push(`${contrast.toFixed(2)}: ${textContent.trim()}`);
  }
  return found;
}

export function unlabelledFields() {
  const fields = [...document.querySelectorAll('input:not([type=hidden]), textarea')];
  return fields.filter(({ labels }) => labels.length !== 1).map(({ name }) => name);
}

export function focusOutline() {
  return getComputedStyle(document.activeElement).outlineStyle;
}
