// The default theme, with room for what is wide on narrow screens, and a notice on pages of one version.
import DefaultTheme from 'vitepress/theme';
import { useData } from 'vitepress';
import { h } from 'vue';
import './narrow.css';

/** Above each page of a site that is published for one version: where the latest pages are. */
function VersionNotice() {
  const { version, latest } = useData().theme.value.published;
  if (!version) return null;
  return h('p', { class: 'version-notice' }, [
    `This is the documentation of version ${version}. `,
    h('a', { href: latest }, 'Documentation of the latest version'),
  ]);
}

export default {
  extends: DefaultTheme,
  Layout: () => h(DefaultTheme.Layout, null, { 'doc-before': () => h(VersionNotice) }),
};
