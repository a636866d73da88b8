"""Human evaluation: blinded pages with pairs of edits, and the analysis of what raters answered.

The design follows Khrulkov et al. (2021), section 5.2.4. A rater sees an original and the edits of
two methods in random order, and answers two questions: which edit changes the attribute better
towards its target, and which one better keeps the rest of the picture.
"""

FORMAT = "editbench human"
VERSION = 1
ASKED = {
    "change": "Q1: which changes the attribute better towards its target",
    "identity": "Q2: which better keeps the original",
}
ANSWERS = ("left", "right", "none")  # none: 'none, both, not applicable', as in the paper
# Codes of raters. They cannot be read as a formula by a spreadsheet. 'all' is not allowed, since it
# names the row of all raters.
RATER = r"(?!all$)[A-Za-z0-9._\-]{1,40}"
