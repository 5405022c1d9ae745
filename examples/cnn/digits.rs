//! Digits drawn by code: strokes under a random affine map, of random width, with noise. What is drawn is a function of
//! the seed alone.

use std::f32::consts::PI;

use tapeflow::Generator;

use crate::images::{CLASSES, Images, PIXELS, SIDE};

type Point = [f32; 2];

/// `n` digits, as many of each kind as can be.
pub fn draw(n: usize, seed: u64) -> Images {
    let generator = Generator::new(seed);
    let mut images = Images { pixels: Vec::with_capacity(n * PIXELS), labels: Vec::with_capacity(n) };
    for index in 0..n {
        let digit = index % CLASSES;
        images.pixels.extend(picture(&strokes(digit), &generator));
        images.labels.push(digit as u8);
    }
    images
}

/// Points of an arc, from angle to angle in half turns; angle 0 points right, ½ down.
fn arc(centre: Point, radii: Point, from: f32, to: f32) -> Vec<Point> {
    const POINTS: usize = 14;
    let at = |i: usize| PI * (from + (to - from) * i as f32 / (POINTS - 1) as f32);
    (0..POINTS).map(|i| [centre[0] + radii[0] * at(i).cos(), centre[1] + radii[1] * at(i).sin()]).collect()
}

/// The strokes of a digit, in a box from (0, 0) at the top left to (1, 1).
fn strokes(digit: usize) -> Vec<Vec<Point>> {
    match digit {
        0 => vec![arc([0.5, 0.5], [0.32, 0.46], 0.0, 2.0)],
        1 => vec![vec![[0.32, 0.22], [0.55, 0.05], [0.55, 0.95]]],
        2 => vec![[arc([0.5, 0.3], [0.3, 0.25], -1.0, 0.25), vec![[0.2, 0.95], [0.82, 0.95]]].concat()],
        3 => vec![arc([0.47, 0.28], [0.3, 0.23], -0.9, 0.5), arc([0.47, 0.72], [0.33, 0.24], -0.5, 0.9)],
        4 => vec![vec![[0.62, 0.05], [0.15, 0.62], [0.88, 0.62]], vec![[0.66, 0.35], [0.66, 0.96]]],
        5 => {
            vec![[vec![[0.8, 0.06], [0.28, 0.06], [0.24, 0.45]], arc([0.48, 0.67], [0.32, 0.27], -0.7, 0.85)].concat()]
        }
        6 => vec![vec![[0.68, 0.05], [0.38, 0.3], [0.2, 0.65]], arc([0.5, 0.7], [0.3, 0.25], -1.0, 1.0)],
        7 => vec![vec![[0.16, 0.07], [0.84, 0.07], [0.42, 0.96]]],
        8 => vec![arc([0.5, 0.27], [0.26, 0.22], 0.0, 2.0), arc([0.5, 0.73], [0.31, 0.23], 0.0, 2.0)],
        _ => vec![arc([0.5, 0.3], [0.29, 0.25], 0.0, 2.0), vec![[0.79, 0.3], [0.74, 0.65], [0.52, 0.96]]],
    }
}

fn picture(strokes: &[Vec<Point>], generator: &Generator) -> Vec<u8> {
    let between = |low: f32, high: f32| low + (high - low) * generator.next_f32();
    let (turn, slant) = (between(-0.3, 0.3), between(-0.35, 0.35));
    let size = [between(12.0, 18.0), between(17.0, 22.0)];
    let place = [14.0 + between(-2.0, 2.0), 14.0 + between(-2.0, 2.0)];
    let (width, ink) = (between(0.8, 1.7), between(0.75, 1.0));
    let map = |p: &Point| {
        let (wobble_x, wobble_y) = (between(-0.02, 0.02), between(-0.02, 0.02));
        let (x, y) = ((p[0] - 0.5 + wobble_x) * size[0], (p[1] - 0.5 + wobble_y) * size[1]);
        let x = x - slant * y;
        [place[0] + x * turn.cos() - y * turn.sin(), place[1] + x * turn.sin() + y * turn.cos()]
    };
    let lines: Vec<Vec<Point>> = strokes.iter().map(|line| line.iter().map(map).collect()).collect();
    let segments: Vec<[Point; 2]> = lines.iter().flat_map(|l| l.windows(2).map(|w| [w[0], w[1]])).collect();
    let shade = |pixel: usize| {
        let at = [(pixel % SIDE) as f32 + 0.5, (pixel / SIDE) as f32 + 0.5];
        let near = segments.iter().map(|s| distance(at, *s)).fold(f32::MAX, f32::min);
        let noise = between(-0.06, 0.06);
        // The edge of a stroke is a pixel wide.
        (ink * (width + 0.5 - near).clamp(0.0, 1.0) + noise).clamp(0.0, 1.0)
    };
    (0..PIXELS).map(|pixel| (shade(pixel) * 255.0) as u8).collect()
}

/// From a point to a segment.
fn distance(p: Point, [a, b]: [Point; 2]) -> f32 {
    let (ab, ap) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let length = (ab[0] * ab[0] + ab[1] * ab[1]).max(1e-6);
    let t = ((ap[0] * ab[0] + ap[1] * ab[1]) / length).clamp(0.0, 1.0);
    (ap[0] - t * ab[0]).hypot(ap[1] - t * ab[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_drawn_within_the_image_and_the_same_for_a_seed() {
        let images = draw(200, 3);
        assert_eq!(images.pixels, draw(200, 3).pixels);
        assert_ne!(images.pixels, draw(200, 4).pixels);
        for index in 0..200 {
            let image = images.image(index);
            let dark = image.iter().filter(|&&v| v > 128).count();
            assert!((20..300).contains(&dark), "image {index} has {dark} dark pixels");
            let edge = (0..SIDE).flat_map(|i| [image[i], image[PIXELS - 1 - i], image[i * SIDE], image[i * SIDE + 27]]);
            assert!(edge.filter(|&v| v > 128).count() < 12, "image {index} leaves its frame");
        }
    }
}
