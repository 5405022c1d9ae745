//! Tests of the pool as a whole: order, errors, panics, concurrent callers, reuse, dropping.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Job, Pool, RunState, run_inline};
use crate::program::kernel::RunError;

const THREADS: [usize; 4] = [1, 2, 3, 8];

type Chunk = dyn Fn(usize, usize) -> Result<(), RunError> + Sync;

/// A job that checks every rule it can: order, exactly once, scratch; and does what `work` says in each chunk.
struct Graph {
    chunks: Vec<usize>,
    dependents: Vec<Vec<u32>>,
    dependencies: Vec<Vec<usize>>,
    /// How often each was prepared, each chunk ran, each was finished.
    prepared: Vec<AtomicU32>,
    ran: Vec<Vec<AtomicU32>>,
    finished: Vec<AtomicU32>,
    work: Box<Chunk>,
}

impl Graph {
    fn new(chunks: &[usize], edges: &[(usize, usize)], work: Box<Chunk>) -> Graph {
        let mut graph = Graph {
            chunks: chunks.to_vec(),
            dependents: vec![vec![]; chunks.len()],
            dependencies: vec![vec![]; chunks.len()],
            prepared: chunks.iter().map(|_| AtomicU32::new(0)).collect(),
            ran: chunks.iter().map(|&chunks| (0..chunks).map(|_| AtomicU32::new(0)).collect()).collect(),
            finished: chunks.iter().map(|_| AtomicU32::new(0)).collect(),
            work,
        };
        for &(from, to) in edges {
            graph.dependents[from].push(to as u32);
            graph.dependencies[to].push(from);
        }
        graph
    }

    fn random(random: &mut Random, steps: usize) -> Graph {
        let chunks: Vec<usize> = (0..steps).map(|_| [0, 1, 1, 2, 7, 40][random.below(6)]).collect();
        let density = 1 + random.below(4);
        let edges: Vec<(usize, usize)> = (1..steps)
            .flat_map(|to| {
                let mut from: Vec<usize> = (0..random.below(density + 1)).map(|_| random.below(to)).collect();
                from.sort_unstable();
                from.dedup();
                from.into_iter().map(move |from| (from, to))
            })
            .collect();
        Graph::new(&chunks, &edges, Box::new(|_, _| Ok(())))
    }

    /// Asserts that all ran exactly once, and forgets it.
    fn check(&mut self) {
        assert!(self.counts().all(|count| std::mem::take(count.get_mut()) == 1));
    }

    fn forget(&mut self) {
        self.counts().for_each(|count| *count.get_mut() = 0);
    }

    fn counts(&mut self) -> impl Iterator<Item = &mut AtomicU32> {
        self.ran.iter_mut().flatten().chain(&mut self.prepared).chain(&mut self.finished)
    }
}

impl Job for Graph {
    fn steps(&self) -> usize {
        self.chunks.len()
    }
    fn chunks(&self, step: usize) -> usize {
        self.chunks[step]
    }
    fn dependents(&self, step: usize) -> &[u32] {
        &self.dependents[step]
    }
    fn dependencies(&self, step: usize) -> u32 {
        self.dependencies[step].len() as u32
    }
    unsafe fn prepare(&self, step: usize) {
        // Relaxed on purpose: the pool must make what was counted before visible.
        for &before in &self.dependencies[step] {
            assert_eq!(self.finished[before].load(Ordering::Relaxed), 1, "step {step} was prepared before {before}");
        }
        assert!(self.ran[step].iter().all(|ran| ran.load(Ordering::Relaxed) == 0));
        self.prepared[step].fetch_add(1, Ordering::Relaxed);
    }
    unsafe fn run_chunk(&self, step: usize, chunk: usize, scratch: &mut [u8]) -> Result<(), RunError> {
        // Relaxed on purpose, as above.
        for &before in &self.dependencies[step] {
            assert_eq!(self.finished[before].load(Ordering::Relaxed), 1, "step {step} ran before {before}");
        }
        assert_eq!(self.prepared[step].load(Ordering::Relaxed), 1);
        assert_eq!(self.finished[step].load(Ordering::Relaxed), 0);
        assert_eq!((scratch.len(), scratch.as_ptr() as usize % 64), (self.scratch_bytes(), 0));
        scratch.fill(chunk as u8);
        let result = (self.work)(step, chunk);
        assert!(scratch.iter().all(|&byte| byte == chunk as u8), "scratch is shared");
        self.ran[step][chunk].fetch_add(1, Ordering::Relaxed);
        result
    }
    unsafe fn finish(&self, step: usize, scratch: &mut [u8]) -> Result<(), RunError> {
        assert_eq!(scratch.len(), self.scratch_bytes());
        assert!(self.ran[step].iter().all(|ran| ran.load(Ordering::Relaxed) == 1));
        self.finished[step].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn scratch_bytes(&self) -> usize {
        100
    }
}

/// SplitMix64. Steele, Lea & Flood 2014.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

fn broken(step: usize, chunk: usize) -> RunError {
    RunError::Index { index: step as i64, extent: chunk }
}

fn spin(duration: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

#[test]
fn random_graphs_run_in_order_and_exactly_once() {
    let mut random = Random(1);
    let mut state = RunState::new();
    for threads in THREADS {
        let pool = Pool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads);
        for _ in 0..60 {
            let steps = 1 + random.below(60);
            let mut graph = Graph::random(&mut random, steps);
            for _ in 0..5 {
                assert_eq!(pool.run(&graph, &mut state), Ok(()));
                graph.check();
            }
            assert_eq!(run_inline(&graph), Ok(()));
            graph.check();
        }
    }
}

#[test]
fn wide_and_narrow_graphs() {
    let pool = Pool::new(3).unwrap();
    let mut state = RunState::new();
    let fan: Vec<(usize, usize)> = (1..500).map(|to| (0, to)).chain((1..500).map(|from| (from, 500))).collect();
    let chain: Vec<(usize, usize)> = (1..501).map(|to| (to - 1, to)).collect();
    for edges in [fan, chain, vec![]] {
        for chunks in [0, 1, 9] {
            let mut graph = Graph::new(&[chunks; 501], &edges, Box::new(|_, _| Ok(())));
            assert_eq!(pool.run(&graph, &mut state), Ok(()));
            graph.check();
        }
    }
    assert_eq!(pool.run(&Graph::new(&[], &[], Box::new(|_, _| Ok(()))), &mut state), Ok(()));
}

#[test]
fn all_threads_work_at_once() {
    let pool = Pool::new(4).unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    let meeting = Arc::clone(&inside);
    // Each chunk waits for the other three: fewer than four threads would never get through.
    let meet = move |_, _| {
        meeting.fetch_add(1, Ordering::SeqCst);
        while meeting.load(Ordering::SeqCst) < 4 {
            std::thread::yield_now();
        }
        Ok(())
    };
    let mut graph = Graph::new(&[4], &[], Box::new(meet));
    for _ in 0..20 {
        inside.store(0, Ordering::SeqCst);
        assert_eq!(pool.run(&graph, &mut RunState::new()), Ok(()));
        graph.check();
        std::thread::sleep(Duration::from_micros(200)); // let them park
    }
}

#[test]
fn the_first_error_in_order_comes_out() {
    for threads in THREADS {
        let pool = Pool::new(threads).unwrap();
        let mut state = RunState::new();
        // Steps 1 and 2 run side by side and both fail, step 1 late; step 3 waits for both.
        let work = |step: usize, chunk: usize| match (step, chunk) {
            (1, 30) => {
                spin(Duration::from_micros(100));
                Err(broken(1, 30))
            }
            (1, 33..) | (2, 3) => Err(broken(step, chunk)),
            (3, _) => panic!("must be skipped"),
            _ => Ok(()),
        };
        let mut graph = Graph::new(&[3, 40, 40, 5], &[(0, 1), (0, 2), (1, 3), (2, 3)], Box::new(work));
        for _ in 0..50 {
            assert_eq!(pool.run(&graph, &mut state), Err(broken(1, 30)));
            assert_eq!(graph.ran[3].iter_mut().map(|ran| *ran.get_mut()).sum::<u32>(), 0);
            assert_eq!(*graph.finished[1].get_mut(), 0);
            graph.forget();
        }
        // The pool and the state are as good as new.
        let mut good = Graph::new(&[3, 40], &[(0, 1)], Box::new(|_, _| Ok(())));
        assert_eq!(pool.run(&good, &mut state), Ok(()));
        good.check();
    }
}

#[test]
fn a_panic_is_an_error_and_the_pool_lives_on() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for threads in THREADS {
        let pool = Pool::new(threads).unwrap();
        let mut state = RunState::new();
        let work = |step, chunk| if (step, chunk) == (1, 2) { panic!("chunk {chunk} of {step}") } else { Ok(()) };
        let mut graph = Graph::new(&[4, 4, 4], &[(0, 1), (1, 2)], Box::new(work));
        for _ in 0..20 {
            assert_eq!(pool.run(&graph, &mut state), Err(RunError::Panic("chunk 2 of 1".to_owned())));
            graph.forget();
        }
        let mut good = Graph::new(&[40], &[], Box::new(|_, _| Ok(())));
        assert_eq!(pool.run(&good, &mut state), Ok(()));
        good.check();
    }
    std::panic::set_hook(hook);
}

#[test]
fn many_callers_share_a_pool() {
    // More callers than seats.
    for threads in [2, 3] {
        let pool = Pool::new(threads).unwrap();
        std::thread::scope(|scope| {
            for seed in 0..12 {
                let pool = &pool;
                scope.spawn(move || {
                    let mut random = Random(seed);
                    let mut state = RunState::new();
                    for _ in 0..30 {
                        let mut graph = Graph::random(&mut random, 20);
                        assert_eq!(pool.run(&graph, &mut state), Ok(()));
                        graph.check();
                    }
                });
            }
        });
    }
}

#[test]
fn a_nested_run_is_inline() {
    let pool = Arc::new(Pool::new(2).unwrap());
    let inner_pool = Arc::clone(&pool);
    let nested = move |_, _| {
        let here = std::thread::current().id();
        let same = move |_, _| if std::thread::current().id() == here { Ok(()) } else { Err(broken(0, 0)) };
        let mut graph = Graph::new(&[5, 5], &[(0, 1)], Box::new(same));
        let result = inner_pool.run(&graph, &mut RunState::new());
        graph.check();
        result
    };
    let mut graph = Graph::new(&[8], &[], Box::new(nested));
    assert_eq!(pool.run(&graph, &mut RunState::new()), Ok(()));
    graph.check();
}

#[test]
fn dropping_ends_idle_and_parked_threads() {
    for pause in [0, 1000] {
        for threads in THREADS {
            let pool = Pool::new(threads).unwrap();
            std::thread::sleep(Duration::from_micros(pause));
            drop(pool);
        }
    }
}

#[test]
fn the_global_pool_is_replaced() {
    super::set_threads(2).unwrap();
    let old = super::global();
    super::set_threads(3).unwrap();
    assert_eq!((old.threads(), super::global().threads()), (2, 3));
    let threads = Mutex::new(std::collections::HashSet::new());
    let threads = Arc::new(threads);
    let seen = Arc::clone(&threads);
    let note = move |_, _| {
        seen.lock().unwrap().insert(std::thread::current().id());
        Ok(())
    };
    let graph = Graph::new(&[100], &[], Box::new(note));
    assert_eq!(old.run(&graph, &mut RunState::new()), Ok(()));
    assert!(threads.lock().unwrap().len() <= 2);
}
