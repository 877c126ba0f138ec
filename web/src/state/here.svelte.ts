// Where the page is: path and query. The query is the whole state of a page, so reload, back and a link all work.

class Here {
  path = $state(location.pathname);
  search = $state(location.search);
  /** Told anew whenever another page was gone to, so that the focus can follow. */
  visits = $state(0);
  readonly query = $derived(new URLSearchParams(this.search));

  constructor() {
    addEventListener('popstate', () => this.#read());
    document.addEventListener('click', (event) => this.#follow(event));
  }

  go(address: string, replace = false): void {
    const before = this.path;
    if (replace) history.replaceState(null, '', address);
    else history.pushState(null, '', address);
    this.#read();
    if (this.path !== before) {
      scrollTo(0, 0);
      this.visits += 1;
    }
  }

  get(name: string): string | undefined {
    return this.query.get(name) ?? undefined;
  }

  all(name: string): string[] {
    return this.query.getAll(name);
  }

  /** The address of this page with some of its query changed; undefined or an empty list takes a name out. */
  with(changes: Record<string, string | readonly string[] | undefined>): string {
    const query = new URLSearchParams(this.search);
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      if (value === undefined) continue;
      for (const one of typeof value === 'string' ? [value] : value) query.append(name, one);
    }
    return `${this.path}${written(query)}`;
  }

  set(changes: Record<string, string | readonly string[] | undefined>, replace = false): void {
    this.go(this.with(changes), replace);
  }

  #read(): void {
    this.path = location.pathname;
    this.search = location.search;
  }

  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.('a[href]');
    if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute('download')) return;
    const { origin, pathname, search } = new URL(link.href);
    if (origin !== location.origin || link.getAttribute('href')?.startsWith('#') || isOfHost(pathname)) return;
    event.preventDefault();
    this.go(pathname + search);
  }
}

/** Addresses that the host answers itself. */
function isOfHost(path: string): boolean {
  return path.startsWith('/api/') || ['/metrics', '/readyz', '/livez', '/healthz'].includes(path);
}

/** `?from=now-1h&filter=kind=boot`: readable, because people send it to each other. */
export function written(query: URLSearchParams): string {
  const text = query.toString().replace(/%3A/gi, ':').replace(/%2C/gi, ',').replace(/%3D/gi, '=');
  return text ? `?${text}` : '';
}

export const here = new Here();
