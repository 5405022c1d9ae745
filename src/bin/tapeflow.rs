//! The command `tapeflow`: what this machine can compute on.

use std::process::ExitCode;

use tapeflow::Device;

const USAGE: &str = "usage: tapeflow devices    lists the devices that programs can run on";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["devices"] => print!("{}", devices()),
        ["--help" | "-h" | "help"] => println!("{USAGE}"),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One paragraph per device; where a family has none, one line that says why.
fn devices() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = format!("cpu\n  {threads} threads\n");
    for (family, found) in Device::list() {
        match found {
            Ok(infos) if infos.is_empty() => out += &format!("{family}: no device\n"),
            Ok(infos) => {
                for info in infos {
                    out += &format!("{family}:{}\n  {}, {}", info.index, info.name, info.device_type);
                    out += &format!(", {:.1} GiB\n", info.memory as f64 / f64::from(1 << 30));
                    for (what, value) in info.properties {
                        out += &format!("  {what}: {value}\n");
                    }
                }
            }
            Err(why) => out += &format!("{family}: {why}\n"),
        }
    }
    out
}
