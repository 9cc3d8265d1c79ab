// SPDX-License-Identifier: GPL-2.0

//! The volatile write cache of a disk: whether it may hold anything that a flush would save.
//!
//! A barrier flushes what came before, and so does the next write where the application asked for
//! that; often one right after the other. Who flushes what is stable already waits for nothing.

/// What may be in the cache of one disk.
///
/// Writes count where they end, before anybody is told so, and in a flush counts what had ended
/// when it began.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    ended: u64,
    stable: u64,
}

/// The beginning of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Cache {
    /// A disk of which nothing is known: whoever had it before may have written.
    pub const fn unknown() -> Self {
        Self {
            ended: 1,
            stable: 0,
        }
    }

    /// A write ended, well or not, without FUA.
    pub fn write_ended(&mut self) {
        self.ended = self.ended.wrapping_add(1);
    }

    /// A flush is about to begin.
    pub const fn flush_begins(&self) -> Mark {
        Mark(self.ended)
    }

    /// A flush succeeded.
    pub fn flushed(&mut self, since: Mark) {
        let is_newer = since.0.wrapping_sub(self.stable) <= self.ended.wrapping_sub(self.stable);
        if is_newer {
            self.stable = since.0;
        }
    }

    /// Whether every write that ended is on stable storage.
    pub const fn is_stable(&self) -> bool {
        self.ended == self.stable
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn a_disk_is_flushed_once_before_it_is_believed() {
        let mut cache = Cache::unknown();
        assert!(!cache.is_stable());
        let mark = cache.flush_begins();
        cache.flushed(mark);
        assert!(cache.is_stable());
    }

    #[test]
    fn what_ends_during_a_flush_is_not_in_it() {
        let mut cache = Cache::unknown();
        let mark = cache.flush_begins();
        cache.write_ended();
        cache.flushed(mark);
        assert!(!cache.is_stable());
        let later = cache.flush_begins();
        cache.flushed(later);
        assert!(cache.is_stable());
    }

    #[test]
    fn a_flush_that_began_earlier_and_ended_later_takes_nothing_back() {
        let mut cache = Cache::unknown();
        let first = cache.flush_begins();
        cache.write_ended();
        let second = cache.flush_begins();
        cache.flushed(second);
        cache.flushed(first);
        assert!(cache.is_stable());
        cache.write_ended();
        cache.flushed(first);
        cache.flushed(second);
        assert!(!cache.is_stable());
    }
}
