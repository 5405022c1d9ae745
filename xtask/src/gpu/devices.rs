//! The list that `tapeflow devices` prints, read back, and the choice among what is on it.

/// A Vulkan device on the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// `vulkan:0`
    pub name: String,
    /// What its maker calls it, its type and its memory, as listed.
    pub description: String,
    /// GiB.
    memory: f64,
    is_usable: bool,
}

impl Device {
    /// Whether it is the processor, driven as if it were a GPU.
    fn is_cpu(&self) -> bool {
        self.kind() == "CPU"
    }

    fn kind(&self) -> &str {
        self.description.rsplit(", ").nth(1).unwrap_or_default()
    }
}

/// A device is a line `vulkan:N`, then indented lines, of which the first is `name, type, memory GiB`.
pub fn read(listing: &str) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    let mut is_open = false;
    for line in listing.lines() {
        match (line.strip_prefix("  "), devices.last_mut().filter(|_| is_open)) {
            (None, _) => {
                let index = line.strip_prefix("vulkan:").and_then(|index| index.parse::<usize>().ok());
                is_open = index.is_some();
                devices.extend(index.map(|index| Device {
                    name: format!("vulkan:{index}"),
                    description: String::new(),
                    memory: 0.0,
                    is_usable: true,
                }));
            }
            (Some(said), Some(device)) if device.description.is_empty() => {
                let memory = said.rsplit(", ").next().and_then(|memory| memory.strip_suffix(" GiB"));
                device.memory = memory.and_then(|memory| memory.parse().ok()).unwrap_or(0.0);
                device.description = said.to_owned();
            }
            (Some(said), Some(device)) if said.starts_with("cannot be used") => device.is_usable = false,
            _ => {}
        }
    }
    devices
}

/// The device asked for, else the discrete GPU with the most memory, else any other GPU.
pub fn choose(devices: &[Device], wanted: Option<&str>) -> Result<Device, String> {
    if let Some(wanted) = wanted {
        let wanted = if wanted == "vulkan" { "vulkan:0" } else { wanted };
        let found = devices.iter().find(|device| device.name == wanted);
        return found.cloned().ok_or_else(|| format!("there is no device {wanted} here"));
    }
    let gpus = devices.iter().filter(|device| !device.is_cpu() && device.is_usable);
    let rank = |device: &&Device| (device.kind() == "discrete GPU", device.memory);
    let best = gpus.max_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
    best.cloned().ok_or_else(|| {
        "there is no GPU here that Vulkan can use; a driver that runs on the processor counts only if it is named: \
         --device vulkan:0"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
cpu
  2 threads
vulkan:0
  llvmpipe (LLVM 15.0.6, 256 bits), CPU, 99.0 GiB
  driver: llvmpipe
vulkan:1
  Some, Maker's GPU, integrated GPU, 8.0 GiB
vulkan:2
  Card, discrete GPU, 4.0 GiB
vulkan:3
  Old card, discrete GPU, 16.0 GiB
  cannot be used, lacks: shaderInt64
";

    #[test]
    fn the_listing_is_read_and_the_best_gpu_chosen() {
        let devices = read(LISTING);
        assert_eq!(devices.len(), 4);
        assert_eq!(devices[0].description, "llvmpipe (LLVM 15.0.6, 256 bits), CPU, 99.0 GiB");
        assert_eq!(choose(&devices, None).unwrap().name, "vulkan:2");
        assert_eq!(choose(&devices[..2], None).unwrap().name, "vulkan:1");
        assert_eq!(choose(&devices, Some("vulkan")).unwrap().name, "vulkan:0");
        assert!(choose(&devices, Some("vulkan:7")).is_err());
    }

    #[test]
    fn the_processor_is_no_gpu() {
        let devices = read(LISTING);
        assert!(choose(&devices[..1], None).unwrap_err().contains("there is no GPU"));
        assert_eq!(read("cpu\n  2 threads\nvulkan: there is no Vulkan loader\n"), []);
    }
}
