package patchserve.client;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import patchserve.v1.Reference;

/** Which revision each reference has that this client has changed a moment ago, so that it finds it on every server. */
final class OwnChanges {
    /** Servers with one store hear of changes within about 3 s; one that is asked for a revision looks it up at once. */
    private static final long REMEMBERED_NANOS = Duration.ofSeconds(10).toNanos();

    private record Change(String revision, long atNanos) {
        boolean isOld() {
            return System.nanoTime() - atNanos >= REMEMBERED_NANOS;
        }
    }

    private final Map<String, Change> changes = new HashMap<>();

    /** The reference has this revision since just now, because of a call of this client. */
    synchronized void note(Reference reference) {
        changes.values().removeIf(Change::isOld);
        changes.put(reference.getReferenceId(), new Change(reference.getRevision(), System.nanoTime()));
    }

    /** The revision to ask for; empty if this client has changed nothing. */
    synchronized String revisionOf(String referenceId) {
        Change change = changes.get(referenceId);
        return change == null || change.isOld() ? "" : change.revision();
    }

    /** Somebody else has changed or deleted the reference. */
    synchronized void forget(String referenceId) {
        changes.remove(referenceId);
    }
}
