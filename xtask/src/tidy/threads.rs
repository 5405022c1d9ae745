//! Only the pool spawns compute threads, and the loader its one reader.

use super::Finding;
use super::source::Source;

/// Where threads may be started, each with the reason.
const MAY_SPAWN: &[(&str, &str)] = &[
    ("core/src/pool/", "the worker pool"),
    ("nn/src/data/loader", "prepares the next batch; computes nothing but what it records"),
    ("nn/src/loader", "prepares the next batch; computes nothing but what it records"),
];

pub fn only_in_the_pool(source: &Source) -> Vec<Finding> {
    source.find(|_, line| {
        let spawns = ["thread::spawn", "thread::Builder", "thread::scope", "crossbeam::scope"];
        let found = spawns.into_iter().find(|name| line.code.contains(name))?;
        let allowed = line.test || MAY_SPAWN.iter().any(|(path, _)| source.path.starts_with(path));
        (!allowed).then(|| format!("`{found}`: only the pool spawns compute threads"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::only_in_the_pool;

    #[test]
    fn threads_start_in_the_pool_only() {
        let text = "std::thread::Builder::new()";
        assert!(check(only_in_the_pool, "core/src/pool/registry.rs", text).is_empty());
        assert!(check(only_in_the_pool, "tests/threads.rs", text).is_empty());
        assert_eq!(check(only_in_the_pool, "core/src/cpu/run.rs", text).len(), 1);
    }
}
