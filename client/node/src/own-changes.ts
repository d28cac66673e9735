// What this client has changed a moment ago, so that it finds it on every server.

/** Servers with one store hear of changes within about 3 s; one that is asked for a revision looks it up at once. */
const REMEMBERED_MS = 10_000;

export class OwnChanges {
  private readonly changes = new Map<string, { revision: string; atMs: number }>();

  constructor(private readonly now: () => number = () => performance.now()) {}

  /** The reference has this revision since just now, because of a call of this client. */
  note(referenceId: string, revision: string): void {
    for (const [id, { atMs }] of this.changes) if (this.now() - atMs >= REMEMBERED_MS) this.changes.delete(id);
    this.changes.set(referenceId, { revision, atMs: this.now() });
  }

  /** The revision to ask for; empty if this client has changed nothing. */
  revisionOf(referenceId: string): string {
    const change = this.changes.get(referenceId);
    return change !== undefined && this.now() - change.atMs < REMEMBERED_MS ? change.revision : "";
  }

  /** Somebody else has changed or deleted the reference. */
  forget(referenceId: string): void {
    this.changes.delete(referenceId);
  }
}
