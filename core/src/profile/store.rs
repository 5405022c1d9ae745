//! Where events are kept while they are recorded: per thread in segments that only this thread writes, so that a chunk
//! costs no lock. Owns the format of events and the bound of memory; knows not what they mean.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::Phase;
use super::bound::Bounds;
use crate::device::Kind;
use crate::driver::StepTime;
use crate::locks;

/// Events of a segment; a thread asks for memory once per segment.
const SEGMENT: usize = 1024;
/// Events of a recording, at most (32 bytes each); those that come later are counted.
pub(super) const MOST_EVENTS: usize = 1 << 20;

/// Something that took time, in nanoseconds since the recording began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub what: What,
    pub start: u64,
    pub end: u64,
}

/// What took time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A part of a request.
    Phase(Phase),
    /// A whole run of a bound program, on the thread that asked for it.
    Run(RunId),
    /// One chunk of a step.
    Chunk(RunId, u32, u32),
    /// What a step does after its chunks.
    Finish(RunId, u32),
    /// A step on a device.
    Step(RunId, u32),
}

/// One run of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId {
    /// The program with its sites.
    pub bound: u32,
    /// The number of the run.
    pub number: u32,
}

impl Event {
    fn to_words(self) -> [u64; 4] {
        let of = |kind: u64, id: RunId| kind << 56 | u64::from(id.bound) << 32 | u64::from(id.number);
        let (first, second) = match self.what {
            What::Phase(phase) => (phase as u64, 0),
            What::Run(run) => (of(1, run), 0),
            What::Chunk(run, step, chunk) => (of(2, run), u64::from(step) << 32 | u64::from(chunk)),
            What::Finish(run, step) => (of(3, run), u64::from(step)),
            What::Step(run, step) => (of(4, run), u64::from(step)),
        };
        [first, second, self.start, self.end]
    }

    fn of_words([first, second, start, end]: [u64; 4]) -> Event {
        let run = RunId { bound: (first >> 32) as u32 & 0x00ff_ffff, number: first as u32 };
        let what = match first >> 56 {
            0 => What::Phase(Phase::ALL[first as usize]),
            1 => What::Run(run),
            2 => What::Chunk(run, (second >> 32) as u32, second as u32),
            3 => What::Finish(run, second as u32),
            _ => What::Step(run, second as u32),
        };
        Event { what, start, end }
    }
}

/// Events that one thread writes and anybody may read.
struct Segment {
    events: Box<[[AtomicU64; 4]]>,
    /// How many have been written.
    len: AtomicUsize,
}

impl Segment {
    fn new() -> Arc<Segment> {
        let events = (0..SEGMENT).map(|_| Default::default()).collect();
        Arc::new(Segment { events, len: AtomicUsize::new(0) })
    }

    /// Adds an event; `false` if there is no room. Only the thread that owns the segment calls it.
    fn push(&self, event: Event) -> bool {
        let len = self.len.load(Ordering::Relaxed); // our own
        let Some(place) = self.events.get(len) else { return false };
        for (word, value) in place.iter().zip(event.to_words()) {
            word.store(value, Ordering::Relaxed); // published by `len`
        }
        self.len.store(len + 1, Ordering::Release); // partner: `read`
        true
    }

    fn read(&self) -> impl Iterator<Item = Event> {
        let len = self.len.load(Ordering::Acquire); // partner: `push`
        self.events[..len].iter().map(|words| Event::of_words(words.each_ref().map(|w| w.load(Ordering::Relaxed))))
    }
}

/// The events of one thread or one device.
pub(super) struct Track {
    pub name: String,
    pub is_device: bool,
    segments: Mutex<Vec<Arc<Segment>>>,
    dropped: AtomicU64,
}

impl Track {
    fn new(name: String, is_device: bool) -> Arc<Track> {
        Arc::new(Track { name, is_device, segments: Mutex::default(), dropped: AtomicU64::new(0) })
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        locks::lock(&self.segments)
    }

    pub fn events(&self) -> Vec<Event> {
        self.segments().iter().flat_map(|segment| segment.read().collect::<Vec<_>>()).collect()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) // a number by itself
    }
}

/// A thread's or a device's place in a recording.
struct Writer {
    generation: u64,
    track: Arc<Track>,
    segment: Option<Arc<Segment>>,
}

impl Writer {
    fn push(&mut self, store: &Store, event: Event) {
        if self.segment.as_ref().is_some_and(|segment| segment.push(event)) {
            return;
        }
        // Relaxed: only the count matters.
        let one_less = |left: usize| left.checked_sub(1);
        if store.segments_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            self.track.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let segment = Segment::new();
        segment.push(event);
        self.track.segments().push(segment.clone());
        self.segment = Some(segment);
    }
}

thread_local! {
    static WRITER: RefCell<Option<Writer>> = const { RefCell::new(None) };
}

/// A recording.
pub(super) struct Store {
    generation: u64,
    epoch: Instant,
    tracks: Mutex<Vec<Arc<Track>>>,
    /// With the end of what each did last.
    devices: Mutex<BTreeMap<Kind, (u64, Writer)>>,
    pub bounds: Bounds,
    runs: AtomicU32,
    segments_left: AtomicUsize,
}

impl Store {
    pub fn new(most_events: usize) -> Arc<Store> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Store {
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            epoch: Instant::now(),
            tracks: Mutex::default(),
            devices: Mutex::default(),
            bounds: Bounds::default(),
            runs: AtomicU32::new(0),
            segments_left: AtomicUsize::new(most_events.div_ceil(SEGMENT)),
        })
    }

    /// Nanoseconds since the recording began.
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// A number for a run.
    pub fn next_run(&self) -> u32 {
        self.runs.fetch_add(1, Ordering::Relaxed) // a number by itself
    }

    fn tracks(&self) -> MutexGuard<'_, Vec<Arc<Track>>> {
        locks::lock(&self.tracks)
    }

    fn writer(&self, name: String, is_device: bool) -> Writer {
        let track = Track::new(name, is_device);
        self.tracks().push(track.clone());
        Writer { generation: self.generation, track, segment: None }
    }

    /// Notes what this thread did. A thread that is ending no longer notes anything.
    pub fn push(&self, event: Event) {
        let _ = WRITER.try_with(|writer| {
            let Ok(mut writer) = writer.try_borrow_mut() else { return };
            let writer = match &mut *writer {
                Some(writer) if writer.generation == self.generation => writer,
                stale => stale.insert(self.writer(thread_name(), false)),
            };
            writer.push(self, event);
        });
    }

    /// Notes what a device did in a run that began after `start` and has ended. `steps` are counted from the run's
    /// own beginning; a device has one clock and does one run after the other.
    pub fn push_on(&self, on: Kind, run: RunId, start: u64, length: Option<u64>, steps: &[StepTime]) {
        let mut devices = locks::lock(&self.devices);
        let new = || (0, self.writer(crate::device::Device(on).to_string(), true));
        let (until, writer) = devices.entry(on).or_insert_with(new);
        let now = self.now();
        let begin = length.map_or(start, |length| start.max(now.saturating_sub(length))).max(*until);
        *until = length.map_or(now, |length| begin + length).max(begin);
        writer.push(self, Event { what: What::Run(run), start: begin, end: *until });
        for step in steps {
            let (start, end) = (begin + step.begin, begin + step.end);
            writer.push(self, Event { what: What::Step(run, step.step), start, end });
        }
    }

    /// All tracks, in the order in which they began.
    pub fn all_tracks(&self) -> Vec<Arc<Track>> {
        self.tracks().clone()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Threads keep their last track until they record again.
        for track in self.tracks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            track.segments().clear();
        }
    }
}

fn thread_name() -> String {
    let thread = thread::current();
    thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u32) -> Event {
        let run = RunId { bound: 0x00ab_cdef, number };
        Event { what: What::Chunk(run, 7, number), start: u64::from(number), end: u64::from(number) + 3 }
    }

    #[test]
    fn events_survive_their_encoding() {
        let run = RunId { bound: 0x00ff_ffff, number: u32::MAX };
        let phases = Phase::ALL.map(What::Phase);
        let others = [What::Run(run), What::Chunk(run, u32::MAX, 5), What::Finish(run, 9), What::Step(run, 3)];
        for what in phases.into_iter().chain(others) {
            let event = Event { what, start: 1, end: u64::MAX };
            assert_eq!(Event::of_words(event.to_words()), event);
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let store = Store::new(2 * SEGMENT);
        for number in 0..(2 * SEGMENT + 5) as u32 {
            store.push(event(number));
        }
        let tracks = store.all_tracks();
        let events = tracks[0].events();
        assert_eq!((tracks.len(), events.len(), tracks[0].dropped()), (1, 2 * SEGMENT, 5));
        assert!(events.iter().enumerate().all(|(i, e)| *e == event(i as u32)));
    }

    #[test]
    fn each_thread_has_a_track_of_its_own_and_a_new_recording_begins_new_ones() {
        for _ in 0..2 {
            let store = Store::new(MOST_EVENTS);
            thread::scope(|s| {
                for t in 0..3u32 {
                    let store = &store;
                    s.spawn(move || (0..2000).for_each(|i| store.push(event(t * 2000 + i))));
                }
            });
            let mut firsts: Vec<u32> = Vec::new();
            for track in store.all_tracks() {
                let events = track.events();
                assert_eq!(events.len(), 2000);
                let What::Chunk(run, ..) = events[0].what else { panic!("{:?}", events[0]) };
                assert!(events.iter().enumerate().all(|(i, e)| *e == event(run.number + i as u32)));
                firsts.push(run.number);
            }
            firsts.sort_unstable();
            assert_eq!(firsts, [0, 2000, 4000]);
        }
    }
}
