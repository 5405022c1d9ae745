//! One line of a bench: a flat JSON object. Reads strings and numbers, which is all these lines hold.

/// What was measured, as the peers' `common.py` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub system: String,
    pub workload: String,
    pub metric: String,
    pub unit: String,
    pub version: String,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub threads: usize,
    /// `cpu`, `vulkan:0`, `cuda`, …
    pub device: String,
    /// What its maker calls it, where that is not said of the whole machine.
    pub device_name: Option<String>,
    /// CPUs that something else kept busy meanwhile.
    pub other_cpus: f64,
    /// Peak of resident memory of the process, in MiB.
    pub rss_mb: Option<f64>,
    /// The least that a unit of the metric takes: operations and bytes, as 10⁹; 0 where nothing is said.
    pub floor: (f64, f64),
}

impl Line {
    pub fn parse(text: &str) -> Option<Line> {
        let members = object(text)?;
        let get = |key: &str| members.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let word = |key: &str| get(key).map(str::to_owned);
        let number = |key: &str| get(key)?.parse::<f64>().ok();
        Some(Line {
            system: word("system")?,
            workload: word("workload")?,
            metric: word("metric")?,
            unit: word("unit")?,
            version: word("version")?,
            median: number("median")?,
            min: number("min")?,
            max: number("max")?,
            threads: get("threads")?.parse().ok()?,
            device: word("device").unwrap_or_else(|| "cpu".to_owned()),
            device_name: word("device_name"),
            other_cpus: number("other_cpus").unwrap_or(0.0),
            rss_mb: number("rss_mb"),
            floor: (number("floor_gflop").unwrap_or(0.0), number("floor_gb").unwrap_or(0.0)),
        })
    }

    /// Whether it was computed on the processor, so that it can be compared with what else was; PyTorch's devices have
    /// other names than ours.
    pub fn is_on_cpu(&self) -> bool {
        self.device == "cpu"
    }

    /// Whether less is better.
    pub fn is_time(&self) -> bool {
        self.metric == "time"
    }
}

/// The members of a flat object; strings without their quotes, all else as written.
fn object(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (key, after) = string(rest)?;
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        let value;
        (value, rest) = if rest.starts_with('"') {
            string(rest)?
        } else {
            let (number, _) = rest.split_once(',').unwrap_or((rest, ""));
            (number.trim().to_owned(), &rest[number.len()..])
        };
        members.push((key, value));
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(members)
}

/// A string literal at the start, and what follows it.
fn string(text: &str) -> Option<(String, &str)> {
    let body = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &body[i + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_peer_is_read() {
        let text = concat!(
            r#"{"system": "torch-eager", "workload": "xor_train", "metric": "throughput", "unit": "steps/s", "#,
            r#""median": 2763.9, "min": 1524.8, "max": 4344.4, "n": 112, "threads": 2, "version": "2.15.0+cu132", "#,
            r#""other_cpus": 0.02, "rss_mb": 35}"#
        );
        let line = Line::parse(text).unwrap();
        assert_eq!((line.system.as_str(), line.median, line.threads), ("torch-eager", 2763.9, 2));
        assert_eq!((line.unit.as_str(), line.other_cpus, line.is_time()), ("steps/s", 0.02, false));
        assert!(line.is_on_cpu() && line.device_name.is_none());
        assert_eq!((line.rss_mb, line.floor), (Some(35.0), (0.0, 0.0)));
        let text = text.replace("\"rss_mb\"", "\"device\": \"vulkan:0\", \"device_name\": \"A (B, C)\", \"rss_mb\"");
        let line = Line::parse(&text).unwrap();
        assert_eq!((line.device.as_str(), line.device_name.as_deref()), ("vulkan:0", Some("A (B, C)")));
        assert!(!line.is_on_cpu());
        assert_eq!(Line::parse("{\"system\": \"x\"}"), None);
        assert_eq!(Line::parse("{\"system\": \"x"), None);
    }
}
