//! Grey pictures as PNG, enlarged and side by side. Owns the format (ISO/IEC 15948, W3C PNG), of which it writes what
//! is needed: 8 bits of grey, no filter.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use tapeflow::files::write_atomically;
use tapeflow::{Error, Result};

/// A grey picture; 0 is black.
pub struct Picture {
    width: usize,
    pixels: Vec<u8>,
}

/// Between tiles and around them.
const GAP: usize = 4;
const BACKGROUND: u8 = 40;

impl Picture {
    /// Tiles of `rows` by `cols` in lines of `across`, each pixel enlarged to `scale` by `scale`, with digits under
    /// each.
    pub fn of_tiles(tiles: &[Tile], [rows, cols]: [usize; 2], across: usize, scale: usize) -> Picture {
        let caption = if tiles.iter().any(|t| !t.caption.is_empty()) { 5 * 2 + GAP } else { 0 };
        let (high, wide) = (rows * scale + caption + GAP, cols * scale + GAP);
        let width = across * wide + GAP;
        let height = tiles.len().div_ceil(across).max(1) * high + GAP;
        let mut picture = Picture { width, pixels: vec![BACKGROUND; width * height] };
        for (index, tile) in tiles.iter().enumerate() {
            let (top, left) = (GAP + index / across * high, GAP + index % across * wide);
            for (at, &shade) in tile.pixels.iter().enumerate() {
                picture.square(top + at / cols * scale, left + at % cols * scale, scale, shade);
            }
            for (place, glyph) in tile.caption.iter().enumerate() {
                for at in (0..15).filter(|at| glyph >> (14 - at) & 1 == 1) {
                    let (row, col) = (top + rows * scale + GAP + at / 3 * 2, left + place * 8 + at % 3 * 2);
                    picture.square(row, col, 2, 255);
                }
            }
        }
        picture
    }

    fn square(&mut self, top: usize, left: usize, side: usize, shade: u8) {
        for row in top..top + side {
            self.pixels[row * self.width + left..][..side].fill(shade);
        }
    }

    /// Writes the picture.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.png().map_err(Error::file("write", path))?)
    }

    fn png(&self) -> std::io::Result<Vec<u8>> {
        let mut data = ZlibEncoder::new(Vec::new(), Compression::default());
        for line in self.pixels.chunks(self.width) {
            data.write_all(&[0])?;
            data.write_all(line)?;
        }
        let mut header = Vec::new();
        header.extend((self.width as u32).to_be_bytes());
        header.extend(((self.pixels.len() / self.width) as u32).to_be_bytes());
        header.extend([8, 0, 0, 0, 0]);
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, body) in [(b"IHDR", header), (b"IDAT", data.finish()?), (b"IEND", Vec::new())] {
            png.extend((body.len() as u32).to_be_bytes());
            let start = png.len();
            png.extend(name);
            png.extend(body);
            let mut crc = flate2::Crc::new();
            crc.update(&png[start..]);
            png.extend(crc.sum().to_be_bytes());
        }
        Ok(png)
    }
}

/// One tile of a picture.
pub struct Tile {
    /// Row by row.
    pub pixels: Vec<u8>,
    /// Glyphs of 3 by 5 pixels, from the top left, one bit each.
    pub caption: Vec<u16>,
}

/// The glyph of a digit.
pub fn digit(number: usize) -> u16 {
    [
        0b111_101_101_101_111,
        0b010_110_010_010_111,
        0b111_001_111_100_111,
        0b111_001_111_001_111,
        0b101_101_111_001_001,
        0b111_100_111_001_111,
        0b111_100_111_101_111,
        0b111_001_010_010_010,
        0b111_101_111_101_111,
        0b111_101_111_001_111,
    ][number % 10]
}

/// A wedge: what stands left of it was taken for what stands right.
pub const WEDGE: u16 = 0b100_010_001_010_100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_tiles_and_a_png_its_chunks() {
        let tile = |shade| Tile { pixels: vec![shade; 6], caption: vec![digit(1)] };
        let picture = Picture::of_tiles(&[tile(200), tile(100), tile(50)], [2, 3], 2, 5);
        assert_eq!((picture.width, picture.pixels.len() / picture.width), (2 * 19 + 4, 2 * 28 + 4));
        assert_eq!(picture.pixels[GAP * picture.width + GAP], 200);
        let png = picture.png().unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(png[8..16], [0, 0, 0, 13, b'I', b'H', b'D', b'R']);
        assert_eq!(png[png.len() - 4..], [0xae, 0x42, 0x60, 0x82]);
    }
}
