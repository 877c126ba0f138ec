// Which rows of a long list are drawn: those that are seen, and a few around them.
import {
  elementScroll,
  observeElementOffset,
  observeElementRect,
  type VirtualItem,
  Virtualizer,
} from '@tanstack/virtual-core';

export class Window {
  items = $state.raw<VirtualItem[]>([]);
  height = $state(0);
  /**
   * A row's index modulo this is its slot: which elements of the page show it. A row that comes into sight takes over
   * those of one that went out, because making new ones for every row costs more than a frame has.
   */
  slots = $state(1);
  #virtualizer: Virtualizer<HTMLElement, HTMLElement>;

  /** To be made in a component; `box` scrolls, and each of `count` rows is `rowHeight` pixels high. */
  constructor(box: () => HTMLElement | undefined, count: () => number, rowHeight: number) {
    const options = {
      count: 0,
      getScrollElement: () => box() ?? null,
      estimateSize: () => rowHeight,
      overscan: 6,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      onChange: () => this.#look(),
    };
    const virtualizer = new Virtualizer<HTMLElement, HTMLElement>(options);
    this.#virtualizer = virtualizer;
    $effect(() => {
      if (!box()) return;
      const end = virtualizer._didMount();
      virtualizer._willUpdate();
      return end;
    });
    $effect(() => {
      virtualizer.setOptions({ ...options, count: count() });
      virtualizer._willUpdate();
      this.#look();
    });
  }

  /** Makes a row visible. */
  show(index: number): void {
    this.#virtualizer.scrollToIndex(index, { align: 'auto' });
    this.#look();
  }

  #look(): void {
    const items = this.#virtualizer.getVirtualItems();
    if (items.length > this.slots) this.slots = items.length;
    this.items = items;
    this.height = this.#virtualizer.getTotalSize();
  }
}
