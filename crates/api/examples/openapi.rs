//! Prints the OpenAPI document: `make openapi` writes it to `openapi/v1.json`.

#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn main() {
    print!("{}", herm_api::openapi());
}
