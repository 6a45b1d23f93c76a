"""What the HTML reports of training and export share: the page, its drawings."""
