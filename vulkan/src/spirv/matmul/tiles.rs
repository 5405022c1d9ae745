//! How a product is divided among workgroups: the forms there are, and the choice among them by device.
//! Owns the tables of tile sizes; knows no SPIR-V.
//!
//! A processor driven as a device (lavapipe) has lanes that read each other's registers at no cost, while every load
//! costs some 25 cycles whatever it loads: blocks in registers, as large as can be compiled in a tenth of a second. A
//! graphics processor has shared memory and hides latency with many invocations: tiles of 16 × 16 invocations.
//! Cooperative matrices would be one more form, chosen here before `Tile`.

use tapeflow_ir::DType;

use super::super::spread::TURNS;
use super::product::Product;
use crate::stage::Target;

/// Neighbours that are loaded as one value of twice the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    None,
    /// Two columns of the right operand.
    Columns,
    /// Two terms of the sum, of the right operand.
    Depth,
}

/// A block in the registers of a workgroup: every invocation has `rows` of some columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub rows: u32,
    /// Columns of an invocation.
    pub cols: u32,
    pub pairs: Pairs,
    pub lanes: u32,
    /// Whether each lane loads another row of the left operand and all read it from there.
    pub shuffled: bool,
}

/// A tile in shared memory: `side`² invocations with `rows` by `cols` results each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub side: u32,
    pub rows: u32,
    pub cols: u32,
    /// Terms of the sum that are in shared memory at a time.
    pub depth: u32,
}

impl Tile {
    /// Rows and columns of the tile.
    pub fn extents(&self) -> [u32; 2] {
        [self.side * self.rows, self.side * self.cols]
    }
}

/// Who computes what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Block(Block),
    Tile(Tile),
    /// A workgroup of so many invocations per element of the result.
    Dot(u32),
}

impl Form {
    /// Rows and columns of the result that a workgroup computes.
    pub fn extents(&self) -> [u32; 2] {
        match self {
            Form::Block(block) => [block.rows, block.cols * block.lanes],
            Form::Tile(tile) => tile.extents(),
            Form::Dot(_) => [1, 1],
        }
    }
}

/// A product and how to compute it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub product: Product,
    pub form: Form,
    /// Into how many parts the sum is cut; the parts are added in a stage of their own.
    pub splits: u64,
    /// Terms of a part, but for the last.
    pub chunk: u64,
}

/// The choice for a device: it depends on the product and the device alone.
pub fn choose(product: Product, target: &Target) -> Choice {
    let transposed = product.transposed();
    let candidates = [product, transposed];
    let all = candidates.into_iter().flat_map(|product| {
        let forms = if target.is_cpu { processor(&product, target) } else { graphics(&product, target) };
        forms.into_iter().map(move |(form, cycles)| (product.clone(), form, cycles))
    });
    let best = all.min_by(|a, b| a.2.total_cmp(&b.2));
    let (product, form, _) = best.unwrap_or_else(|| unreachable!("invariant: some form suits every product"));
    let (splits, chunk) = splits(&product, form, target);
    Choice { product, form, splits, chunk }
}

/// Workgroups that keep a device busy.
fn wanted(target: &Target) -> u64 {
    if target.is_cpu { 8 } else { 128 }
}

/// How many workgroups a form takes.
pub fn groups(product: &Product, form: Form) -> u64 {
    let [rows, cols] = form.extents();
    product.rows.div_ceil(rows.into()) * product.cols.div_ceil(cols.into()) * product.items()
}

/// Cuts a long sum whose workgroups are too few.
fn splits(product: &Product, form: Form, target: &Target) -> (u64, u64) {
    let (groups, depth) = (groups(product, form).max(1), product.depth);
    // A part should be worth the second stage; a tile of a processor is worth it later.
    let least = match form {
        Form::Dot(lanes) => 64 * u64::from(lanes),
        _ if target.is_cpu => 4096,
        _ => 256,
    };
    let parts = (wanted(target) / groups).clamp(1, (depth / least).max(1));
    // An invocation of a processor has so many turns.
    let parts = if target.is_cpu { parts.max(depth.div_ceil(TURNS / 2)) } else { parts };
    // Multiples of the depth of any tile, and of a pair.
    let chunk = depth.div_ceil(parts).next_multiple_of(64).max(1);
    (depth.div_ceil(chunk).max(1), chunk)
}

/// Work from which 128 registers pay, which take 60 ms longer to compile than 64.
const LARGE: u64 = 1 << 27;

/// The forms for a processor with estimates of their cycles. Measured on lavapipe: a load 27, a vector multiplied and
/// added 1.5 (with what it takes to keep it outside of the 16 registers), a workgroup 2000.
fn processor(product: &Product, target: &Target) -> Vec<(Form, f64)> {
    let lanes = target.subgroup;
    let wide = product.dtype == DType::F64;
    let mut forms = Vec::new();
    let mut pairs = vec![Pairs::None];
    let narrow = product.dtype == DType::F32;
    if narrow && product.pairs_of_columns() {
        pairs.push(Pairs::Columns);
    }
    if narrow && product.pairs_of_depth() {
        pairs.push(Pairs::Depth);
    }
    for pairs in pairs {
        for rows in [1_u32, 2, 4, 8, 16] {
            for cols in [1, 2, 4, 8, 16, 32] {
                let registers = rows * cols * if wide { 2 } else { 1 };
                // A step by pairs along the depth has two of everything.
                let most = if product.work() >= LARGE && pairs != Pairs::Depth { 128 } else { 64 };
                if registers > most || pairs == Pairs::Columns && cols == 1 {
                    continue;
                }
                let shuffled = target.has_shuffle && rows > 1;
                let left = if shuffled { rows.div_ceil(lanes) } else { rows };
                let right = if pairs == Pairs::None { f64::from(cols) } else { f64::from(cols) / 2.0 };
                let step = 27.0 * (f64::from(left) + right) + 1.5 * f64::from(registers) + 10.0;
                let stores = f64::from(rows * cols) * 30.0;
                let form = Form::Block(Block { rows, cols, pairs, lanes, shuffled });
                let each = step * product.depth as f64 + stores + 2000.0;
                forms.push((form, each * rounds(product, form, target)));
            }
        }
    }
    let form = Form::Dot(lanes);
    let steps = product.depth.div_ceil(lanes.into()) as f64;
    if target.has_shuffle {
        forms.push((form, (steps * 70.0 + 2500.0) * rounds(product, form, target)));
    }
    forms
}

/// How many workgroups come one after the other, if there are enough threads for some of them at a time.
fn rounds(product: &Product, form: Form, target: &Target) -> f64 {
    let at_once = if target.is_cpu { 4 } else { 64 };
    groups(product, form).div_ceil(at_once) as f64
}

/// The forms for a graphics processor with estimates of their cycles.
fn graphics(product: &Product, target: &Target) -> Vec<(Form, f64)> {
    let size = product.dtype.computed().size() as u32;
    let lanes = target.workgroup.clamp(1, 256);
    let lanes = 1 << lanes.ilog2();
    let mut forms = Vec::new();
    let side = if lanes >= 256 { 16 } else { 8 };
    // Few rows: nothing is used often enough to be worth sharing. (Every device has workgroups of 128.)
    if product.rows <= 4 || product.depth == 0 || side * side > lanes {
        let rows = (product.rows.max(1) as u32).min(4).next_power_of_two();
        let lanes = (product.cols.min(lanes.into()) as u32).next_power_of_two().max(lanes.min(32));
        let form = Form::Block(Block { rows, cols: 1, pairs: Pairs::None, lanes, shuffled: false });
        // Neighbouring invocations should read neighbouring addresses.
        let scattered = if product.right.line == 1 || product.right.line == 0 { 1.0 } else { 8.0 };
        forms.push((form, f64::from(lanes) * product.depth as f64 * 2.0 * scattered * rounds(product, form, target)));
    }
    if product.depth >= 64 {
        let lanes = if product.depth >= 4096 { lanes } else { lanes.min(64) };
        let scattered = match (product.left.depth, product.right.depth) {
            (0 | 1, 0 | 1) => 1.0,
            (0 | 1, _) | (_, 0 | 1) => 4.0,
            _ => 8.0,
        };
        let form = Form::Dot(lanes);
        let each = 2.0 * product.depth as f64 * scattered + 8.0 * f64::from(lanes);
        forms.push((form, each * rounds(product, form, target)));
    }
    for rows in [1, 2, 4, 8] {
        for cols in [1, 2, 4, 8] {
            let tile = Tile { side, rows, cols, depth: 16 };
            let skewed = rows > 2 * cols || cols > 2 * rows;
            if product.depth == 0 || skewed || side * side > lanes || shared_bytes(&tile, size) > target.shared_bytes {
                continue;
            }
            let form = Form::Tile(tile);
            let [height, width] = tile.extents().map(f64::from);
            let loads = 2.0 / f64::from(rows) + 2.0 / f64::from(cols);
            let each = height * width * (product.depth as f64 + 16.0) * (1.0 + loads);
            forms.push((form, each * rounds(product, form, target) / 4.0));
        }
    }
    forms
}

/// Elements of a line in shared memory: one more than it holds, so that neither rows nor columns meet in one bank.
pub fn pitch(extent: u32) -> u32 {
    extent + 1
}

/// Bytes of shared memory that a tile takes.
pub fn shared_bytes(tile: &Tile, size: u32) -> u32 {
    let [rows, cols] = tile.extents();
    tile.depth * (pitch(rows) + pitch(cols)) * size
}

#[cfg(test)]
mod tests {
    use tapeflow_core::driver::{Layout, Matmul};

    use super::*;
    use crate::stage::FloatControls;

    fn target(is_cpu: bool) -> Target {
        Target {
            subgroup: if is_cpu { 8 } else { 32 },
            is_cpu,
            shared_bytes: 49152,
            workgroup: 1024,
            has_f64: true,
            has_bytes: true,
            has_halves: true,
            has_shuffle: true,
            f32: FloatControls::default(),
            f64: FloatControls::default(),
        }
    }

    fn chosen([m, n, k]: [usize; 3], is_cpu: bool) -> Choice {
        let plain = |stride: usize| Layout {
            offset: 0,
            shifts: [].into_iter().collect(),
            strides: [stride as isize, 1].into_iter().collect(),
        };
        let (a, b, batch) = (plain(k), plain(n), [].into_iter().collect());
        let [m, n, k] = [m, n, k].map(|extent| [extent].into_iter().collect());
        let product = Product::new(&Matmul { dtype: DType::F32, batch, m, n, k, a, b }).expect("single axes");
        choose(product, &target(is_cpu))
    }

    #[test]
    fn devices_share_and_processors_keep_blocks() {
        assert!(matches!(chosen([1024; 3], false).form, Form::Tile(Tile { rows: 8, cols: 8, .. })));
        let Form::Block(block) = chosen([512; 3], true).form else { panic!("a block") };
        assert_eq!(block.rows * block.cols, 128);
        assert!(block.shuffled && block.pairs == Pairs::Columns);
    }

    #[test]
    fn a_processor_puts_lanes_along_the_longer_side() {
        let Choice { product, form, .. } = chosen([4096, 1, 16], true);
        assert_eq!((product.rows, product.cols), (1, 4096), "{form:?}");
    }

    #[test]
    fn long_sums_are_cut() {
        for is_cpu in [false, true] {
            let Choice { splits, chunk, .. } = chosen([1, 1, 100_000], is_cpu);
            assert!(splits > 1 && (splits - 1) * chunk < 100_000 && splits * chunk >= 100_000);
        }
        assert_eq!(chosen([1024; 3], false).splits, 2);
        assert_eq!(chosen([64, 64, 2000], true).splits, 1);
    }

    #[test]
    fn shared_memory_has_a_limit() {
        let small = Target { shared_bytes: 8192, workgroup: 128, ..target(false) };
        let product = chosen([1024; 3], false).product;
        let Form::Tile(tile) = choose(product, &small).form else { panic!("a tile") };
        assert!(shared_bytes(&tile, 4) <= 8192 && tile.side * tile.side <= 128);
    }
}
