import { Injectable } from '@nestjs/common';

/** Lets a test hold a request in its handler until the test releases it. */
@Injectable()
export class Gates {
  private readonly gates = new Map<string, { arrived: () => void; go: Promise<void> }>();

  /** `arrived` resolves when a request waits at the gate. */
  make(name: string): { arrived: Promise<void>; open: () => void } {
    let open!: () => void;
    let arrive!: () => void;
    const go = new Promise<void>((resolve) => (open = resolve));
    const arrived = new Promise<void>((resolve) => (arrive = resolve));
    this.gates.set(name, { arrived: arrive, go });
    return { arrived, open };
  }

  /** Waits at the gate, if one with this name exists. */
  async pass(name: string | undefined): Promise<void> {
    const gate = name === undefined ? undefined : this.gates.get(name);
    gate?.arrived();
    await gate?.go;
  }
}
