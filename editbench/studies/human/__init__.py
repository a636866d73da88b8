"""Human evaluation: blinded pages with pairs of edits, and the analysis of what raters answered.

After Khrulkov et al. 2021, section 5.2.4: an original and two edits of it by two methods in random
order, and two
questions: which changes the attribute better towards its target, and which better keeps the rest of
the picture.
"""

FORMAT = "editbench human"
VERSION = 1
ASKED = {
    "change": "Q1: which changes the attribute better towards its target",
    "identity": "Q2: which better keeps the original",
}
ANSWERS = ("left", "right", "none")  # none: 'none, both, not applicable', as in the paper
# Codes of raters: no names, nothing that a table could mistake for a formula, and not 'all', which is
# the row of all raters.
RATER = r"(?!all$)[A-Za-z0-9._\-]{1,40}"
