//! Executables that cargo builds, and where it put them, read from its messages. Knows nothing of what they are for.

use std::path::PathBuf;
use std::process::Stdio;

use crate::process::cargo;

/// An executable by the name of its target.
#[derive(Debug, PartialEq, Eq)]
pub struct Artifact {
    pub name: String,
    pub path: PathBuf,
    /// Whether it runs tests.
    pub is_test: bool,
}

/// Builds with these arguments of cargo; gives the executables, fresh or not.
pub fn build(arguments: &[&str]) -> Result<Vec<Artifact>, String> {
    let format = ["--message-format=json-render-diagnostics"];
    let command = || cargo(arguments.iter().copied().chain(format));
    let output = command().stderr(Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo {} failed", arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(artifact).collect())
}

/// Builds with these arguments; gives the path of the program of this name.
pub fn program(name: &str, arguments: &[&str]) -> Result<PathBuf, String> {
    let found = build(arguments)?.into_iter().find(|a| a.name == name && !a.is_test);
    found.map(|a| a.path).ok_or_else(|| format!("cargo names no binary {name}"))
}

/// Reads a message such as `{…,"target":{…,"name":"xtask",…},"profile":{…,"test":false},…,"executable":"/…",…}`.
fn artifact(message: &str) -> Option<Artifact> {
    let (_, executable) = message.split_once("\"executable\":\"")?;
    let (_, target) = message.split_once("\"target\":{")?;
    let (_, profile) = message.split_once("\"profile\":{")?;
    let (_, name) = target.split_once("\"name\":\"")?;
    Some(Artifact {
        name: name.split_once('"')?.0.to_owned(),
        path: PathBuf::from(executable.split_once('"')?.0.replace("\\\\", "\\")),
        is_test: profile.split_once('}')?.0.contains("\"test\":true"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_cargo_is_read() {
        let target = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"xtask","test":true}"#;
        let message = |executable: &str, test: bool| {
            let profile = format!(r#""profile":{{"opt_level":"3","test":{test}}}"#);
            format!(r#"{target},{profile},"executable":{executable},"fresh":true}}"#)
        };
        let expected = |is_test| Some(Artifact { name: "xtask".into(), path: "/t/xtask".into(), is_test });
        assert_eq!(artifact(&message("\"/t/xtask\"", false)), expected(false));
        assert_eq!(artifact(&message("\"/t/xtask\"", true)), expected(true));
        assert_eq!(artifact(&message("null", false)), None);
    }
}
