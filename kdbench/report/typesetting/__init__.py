"""The paper-style report as data, for LaTeX and Typst alike.

`manuscript` puts the content in order, out of `blocks`; `wording` has the sentences
about protocol and limits, `strategies` their table, `references` the works cited.
`fitting` makes tables fit the page, `numbers` aligns what stands in them, `prose` makes
text fit for printing. How it is written down is the renderers' part (`latex`, `paper`,
and `tex` for what LaTeX reads as commands).
"""
