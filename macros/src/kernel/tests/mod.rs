//! Expansions of `#[kernel]` as snapshots, and its errors.

mod errors;
mod methods;
mod rows;
mod scalars;

use proc_macro2::TokenStream;

fn kernel(item: TokenStream) -> TokenStream {
    super::kernel(TokenStream::new(), item)
}

/// What the template says, one row a line, without the paths.
fn template(source: &str, expected: expect_test::Expect) {
    let text = kernel(source.parse().unwrap()).to_string();
    let rows = text.split("rows : & [").nth(1).and_then(|rest| rest.split("} ; & TEMPLATE").next()).unwrap();
    let rows = rows.replace("__ir :: TemplateRow :: ", "\n").replace("__ir :: ", "").replace("outputs :", "\noutputs:");
    let rows = rows
        .replace(" :: ", "::")
        .replace(" (", "(")
        .replace(" ,", ",")
        .replace("& [", "[")
        .replace(" ]", "]")
        .replace("- ", "-");
    let lines: String = rows.lines().map(|line| format!("{}\n", line.trim().trim_end_matches(','))).collect();
    expected.assert_eq(lines.trim_start());
}
