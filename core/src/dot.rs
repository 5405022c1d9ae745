//! Graphviz's language: boxes, arrows, and clusters by dotted path. Owns the escaping and the layout of the text; knows
//! not what is drawn.

use std::fmt::Write;

/// Escapes what has a meaning in a record's label.
pub(crate) fn field(text: &str) -> String {
    escaped(text, "\\\"{}|<> ")
}

/// A quoted string; a line break stays one.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text, "\\\"").replace('\n', "\\n"))
}

fn escaped(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Boxes in the cluster of their path, and those in it.
#[derive(Default)]
pub(crate) struct Clusters {
    boxes: Vec<String>,
    /// By the last segment of their path, in order of their first box.
    inner: Vec<(String, Clusters)>,
}

impl Clusters {
    /// Puts a statement for a box where its path leads; the empty path is outside of all clusters.
    pub fn add(&mut self, path: &str, statement: String) {
        let mut at = self;
        for segment in path.split('.').filter(|segment| !segment.is_empty()) {
            let known = at.inner.iter().position(|(name, _)| name == segment);
            let known = known.unwrap_or_else(|| {
                at.inner.push((segment.to_owned(), Clusters::default()));
                at.inner.len() - 1
            });
            at = &mut at.inner[known].1;
        }
        at.boxes.push(statement);
    }

    /// Writes the statements, clusters inside each other.
    pub fn write(&self, text: &mut String) {
        self.write_at(text, "", 1);
    }

    fn write_at(&self, text: &mut String, path: &str, depth: usize) {
        let indent = "  ".repeat(depth);
        for statement in &self.boxes {
            // Writing into a String cannot fail, here and below.
            let _ = writeln!(text, "{indent}{statement}");
        }
        for (name, inner) in &self.inner {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let _ = writeln!(text, "{indent}subgraph {} {{", quoted(&format!("cluster_{path}")));
            let _ = writeln!(text, "{indent}  label={};", quoted(&path));
            inner.write_at(text, &path, depth + 1);
            let _ = writeln!(text, "{indent}}}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_escaped() {
        assert_eq!(field("a|b <c>"), r"a\|b\ \<c\>");
        assert_eq!(quoted("say \"\\\"\ntwice"), r#""say \"\\\"\ntwice""#);
    }

    #[test]
    fn clusters_lie_in_each_other() {
        let mut clusters = Clusters::default();
        for (path, name) in [("h.0", "a"), ("", "b"), ("h.1.mlp", "c"), ("h.0", "d")] {
            clusters.add(path, format!("{name};"));
        }
        let mut text = String::new();
        clusters.write(&mut text);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let (h, of) = ("subgraph \"cluster_h\" {", |path: &str| format!("label=\"{path}\";"));
        let (zero, one, mlp) =
            ("subgraph \"cluster_h.0\" {", "subgraph \"cluster_h.1\" {", "subgraph \"cluster_h.1.mlp\" {");
        let labels = [of("h"), of("h.0"), of("h.1"), of("h.1.mlp")];
        let [in_h, in_0, in_1, in_mlp] = labels.each_ref().map(String::as_str);
        assert_eq!(lines, ["b;", h, in_h, zero, in_0, "a;", "d;", "}", one, in_1, mlp, in_mlp, "c;", "}", "}", "}"]);
    }
}
