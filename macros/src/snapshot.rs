//! What the expansion tests share: macros are run on text, and what they write is compared as formatted text.

use expect_test::Expect;
use proc_macro2::TokenStream;

/// Compares what a macro makes of a source text, formatted.
pub fn check(expand: impl Fn(TokenStream) -> TokenStream, source: &str, expected: Expect) {
    expected.assert_eq(&format(expand(tokens(source))));
}

/// Compares the messages of the errors a macro finds, with the text of the line and column each points at.
pub fn check_errors(expand: impl Fn(TokenStream) -> TokenStream, source: &str, expected: Expect) {
    let mut found = vec![];
    collect_errors(expand(tokens(source)), &mut found);
    let text: String = found.iter().map(|(at, message)| format!("{at}: {message}\n")).collect();
    expected.assert_eq(&text);
}

fn tokens(source: &str) -> TokenStream {
    source.parse().unwrap_or_else(|error| panic!("the source of the test does not lex: {error}"))
}

fn format(tokens: TokenStream) -> String {
    match syn::parse2(tokens.clone()) {
        Ok(file) => prettyplease::unparse(&file),
        Err(error) => panic!("the expansion does not parse: {error}\n{tokens}"),
    }
}

/// `::core::compile_error!{ "…" }` as syn writes it: the message and where it stands.
fn collect_errors(tokens: TokenStream, found: &mut Vec<(String, String)>) {
    let file: syn::File = syn::parse2(tokens).unwrap_or_else(|error| panic!("the expansion does not parse: {error}"));
    for item in file.items {
        if let syn::Item::Macro(item) = item
            && item.mac.path.segments.last().is_some_and(|s| s.ident == "compile_error")
        {
            let literal: syn::LitStr = item.mac.parse_body().unwrap_or_else(|error| panic!("{error}"));
            let start = item.mac.path.segments[0].ident.span().start();
            found.push((format!("{}:{}", start.line, start.column + 1), literal.value()));
        }
    }
}
