"""The deployed form: a traced graph whose values are maps and where each channel reads them."""
