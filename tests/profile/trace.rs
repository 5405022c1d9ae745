//! The trace as a viewer reads it: JSON whose events nest on their tracks, with every kernel that ran.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

/// A trace's events, by track, in the order of the file; and the tracks' names.
pub fn tracks(json: &Value) -> BTreeMap<(u64, u64), Vec<&Value>> {
    let mut tracks: BTreeMap<(u64, u64), Vec<&Value>> = BTreeMap::new();
    for event in json["traceEvents"].as_array().expect("a list of events") {
        let track = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        match event["ph"].as_str() {
            Some("X") => tracks.entry(track).or_default().push(event),
            Some("M") => assert!(event["args"]["name"].is_string(), "{event}"),
            _ => panic!("{event}"),
        }
    }
    tracks
}

/// Nanoseconds of a begin and an end.
pub fn span(event: &Value) -> (u64, u64) {
    let nanoseconds = |name: &str| (event[name].as_f64().unwrap() * 1e3).round() as u64;
    (nanoseconds("ts"), nanoseconds("ts") + nanoseconds("dur"))
}

/// Checks that each event lies in those that are open when it begins, and in one of the right kind.
pub fn check_nesting(json: &Value) {
    for events in tracks(json).into_values() {
        let mut open: Vec<&Value> = Vec::new();
        for event in events {
            let (start, end) = span(event);
            while open.last().is_some_and(|outer| span(outer).1 <= start && span(outer) != (start, end)) {
                open.pop();
            }
            if let Some(outer) = open.last() {
                assert!(span(outer).0 <= start && end <= span(outer).1, "{event} begins in {outer}");
            }
            let outer = open.last().map(|outer| outer["cat"].as_str().unwrap());
            match event["cat"].as_str().unwrap() {
                "chunk" => assert_eq!(outer, Some("step"), "{event}"),
                "step" => assert_eq!(outer, Some("run"), "{event}"),
                "run" | "phase" => assert!(outer.is_none_or(|outer| outer == "phase" || outer == "run"), "{event}"),
                other => panic!("{other}"),
            }
            open.push(event);
        }
    }
}

fn json(profile: &tapeflow::Profile) -> Value {
    let mut text = Vec::new();
    profile.write_json(&mut text).unwrap();
    serde_json::from_slice(&text).expect("valid JSON")
}

#[test]
fn events_nest_and_every_kernel_that_ran_is_there() -> Result<()> {
    let _alone = alone();
    for threads in [1, 3] {
        set_threads(threads)?;
        let (trained, profile) = profile(train);
        trained?;
        let json = json(&profile);
        check_nesting(&json);
        assert_eq!(json["otherData"]["dropped_events"], 0);
        let tracks = tracks(&json);
        let events: Vec<&Value> = tracks.values().flatten().copied().collect();
        let of = |category: &'static str| events.iter().filter(move |e| e["cat"] == category);
        let names: BTreeSet<&str> = of("step").filter_map(|e| e["name"].as_str()).collect();
        for kernel in profile.kernels() {
            assert!(names.contains(kernel.name.as_str()), "{kernel:?}");
        }
        // Each call's chunks are all there, whoever ran them.
        let mut chunks: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for step in of("step") {
            let said = step["args"]["chunks"].as_str().unwrap();
            let (ran, all) = said.split_once(" of ").unwrap();
            let counted = chunks.entry(step["name"].as_str().unwrap()).or_default();
            *counted = [counted[0] + ran.parse::<u64>().unwrap(), all.parse().unwrap()];
        }
        let kernels = profile.kernels();
        let calls = |name: &str| kernels.iter().filter(|k| k.name == name).map(|k| k.calls).sum::<u64>();
        let single = chunks.iter().find(|(name, [_, all])| *all == 1 && calls(name) == 3).expect("a small kernel");
        assert_eq!(single.1[0], 3, "{single:?}");
        let matmul = of("step").find(|e| e["name"] == "matmul").unwrap();
        let arguments = &matmul["args"];
        assert!(arguments["GFLOP/s"].as_f64().unwrap() > 0.0 && arguments["device"] == "cpu", "{matmul}");
        assert!(arguments["at"].as_str().unwrap().contains(".rs:") && arguments["dtype"] == "f32", "{matmul}");
        if threads == 1 {
            assert_eq!(tracks.len(), 1);
        }
    }
    set_threads(0)?;
    Ok(())
}

#[test]
fn a_worker_has_a_track_with_its_name() -> Result<()> {
    let _alone = alone();
    set_threads(2)?;
    let a = Tensor::ones([384, 384], DType::F32);
    let profiler = tapeflow::Profiler::start();
    // Whether a worker gets a chunk of one product is up to the system; of many it does.
    let worked = (0..2000).any(|_| {
        a.matmul(&a).realize().expect("a product");
        let json = json(&profiler.so_far());
        let names = json["traceEvents"].as_array().unwrap().iter();
        names.filter(|e| e["name"] == "thread_name").any(|e| e["args"]["name"] == "tapeflow-1")
    });
    assert!(worked);
    check_nesting(&json(&profiler.stop()));
    set_threads(0)?;
    Ok(())
}

#[test]
fn a_trace_is_a_whole_file_or_none() -> Result<()> {
    let _alone = alone();
    let folder = std::env::temp_dir().join(format!("tapeflow-trace-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (ran, profile) = profile(|| Tensor::ones([4, 3, 2, 1, 7], DType::F32).exp().to_vec::<f32>());
    ran?;
    let json = json(&profile);
    let events = json["traceEvents"].as_array().unwrap();
    // Nobody else computes this, so its program is made here.
    for phase in ["realize", "look up", "compile", "differentiate", "fuse", "place, plan, schedule"] {
        assert!(events.iter().any(|e| e["cat"] == "phase" && e["name"] == phase), "{phase}");
    }
    let path = folder.join("trace.json");
    profile.write_trace(&path).unwrap();
    check_nesting(&serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap());
    assert!(profile.write_trace(folder.join("none/trace.json")).is_err());
    assert!(profile.write_trace(&folder).is_err());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    std::fs::remove_dir_all(folder).unwrap();
    Ok(())
}
